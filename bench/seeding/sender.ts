/** The protected side of the seeding bench: `node sender.ts DATA-DIRECTORY PORT IMAGE SIZE COMPRESS RATE`. */
import { QemuHypervisor, QemuImages } from '../../src/hypervisor/index.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { silentLog } from '../../src/lib/log.ts';
import { nodeFiles } from '../../src/lib/node-files.ts';
import { newId, systemRandom } from '../../src/lib/random.ts';
import { loadIdentity, PeerClient, PeerDirectory } from '../../src/peer/index.ts';
import { Zones } from '../../src/recovery-point/index.ts';
import { PeerTarget, ProtectedLayout, ProtectedMachine } from '../../src/replication/index.ts';
import { rssPeakMiB } from './common.ts';

const [dataDirectory, port, image, size, compress, rate] = process.argv.slice(2) as [
  string,
  string,
  string,
  string,
  string,
  string,
];
const clock = systemClock;
const random = systemRandom;
const files = nodeFiles;
const identity = (await loadIdentity(files, dataDirectory))!;
const known = (await PeerDirectory.load(files, dataDirectory)).list()[0]!;
const peer = { ...known, address: { host: '127.0.0.1', port: Number(port) } };
const client = new PeerClient({ identity, peer, clock, random });
const target = new PeerTarget({ siteId: peer.siteId, client, clock });
const machineId = newId(clock, random);
const machine = await ProtectedMachine.create(
  {
    ...{
      files,
      clock,
      random,
      log: silentLog,
      zones: new Zones(),
      siteId: identity.siteId,
      signer: identity.signer,
    },
    images: new QemuImages({ clock }),
    hypervisor: new QemuHypervisor({ clock }),
  },
  new ProtectedLayout(dataDirectory, machineId),
  {
    ...{ machineId, name: 'seed', kind: 'managed', createdAtMs: clock.wallMs(), epoch: 1, protection: null },
    configuration: {
      ...{
        name: 'seed',
        uuid: '6a1c5a5e-0000-4000-8000-00000000000b',
        architecture: 'x86_64',
        chipset: 'q35',
      },
      ...{ firmware: 'bios', cpus: 1, memoryBytes: 256 * 1024 * 1024, nics: [], guestAgent: false },
      disks: [{ diskId: 'disk0', bus: 'virtio-blk', sizeBytes: Number(size) }],
    },
    sockets: { qmpPath: `${dataDirectory}/qmp` },
    disks: [
      {
        diskId: 'disk0',
        deviceName: 'disk0',
        chain: [{ path: image, format: 'qcow2' }],
        sizeBytes: Number(size),
      },
    ],
  },
);
await machine.protect({
  ...{
    targetSiteId: peer.siteId,
    schedules: [],
    retention: { types: { crash: 3, app: 0 } },
    freezeLimitMs: 5000,
  },
  compression: compress === 'zstd',
  ...(Number(rate) > 0 ? { bytesPerSecond: Number(rate) } : {}),
});
await machine.attach();
await machine.cut('crash');
const startMs = clock.monotonicMs();
const outcome = await machine.replicate(target);
const seconds = (clock.monotonicMs() - startMs) / 1000;
if (outcome.kind !== 'sent') throw new Error(`nothing was sent: ${outcome.kind}`);
process.send!({ seconds, wireBytes: outcome.wireBytes, peakMiB: rssPeakMiB(), cpu: process.cpuUsage() });
client.close();
process.disconnect();
