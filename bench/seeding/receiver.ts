/** The recovery side of the seeding bench as a process of its own: `node receiver.ts DATA-DIRECTORY`. */

import { QemuImages } from '../../src/hypervisor/index.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { silentLog } from '../../src/lib/log.ts';
import { nodeFiles } from '../../src/lib/node-files.ts';
import { systemRandom } from '../../src/lib/random.ts';
import { loadIdentity, Pairing, PeerDirectory, PeerServer } from '../../src/peer/index.ts';
import { Zones } from '../../src/recovery-point/index.ts';
import { Replicas } from '../../src/replica/index.ts';
import { NOTHING_AT_HOME, ReplicationReceiver } from '../../src/replication/index.ts';
import { rssPeakMiB, trusted } from './common.ts';

const dataDirectory = process.argv[2]!;
const clock = systemClock;
const random = systemRandom;
const files = nodeFiles;
const identity = (await loadIdentity(files, dataDirectory))!;
const peers = await PeerDirectory.load(files, dataDirectory);
const images = new QemuImages({ clock });
const replicas = await Replicas.open(
  { files, images, clock, log: silentLog, zones: new Zones(), isSignedBySource: trusted(peers) },
  dataDirectory,
);
const receiver = new ReplicationReceiver({
  home: NOTHING_AT_HOME,
  replicas,
  wallMs: () => clock.wallMs(),
  log: silentLog,
  onPublished: () => process.send!({ peakMiB: rssPeakMiB() }),
  acceptOrigin: () => Promise.reject(new Error('nothing is forwarded')),
  preview: () => Promise.reject(new Error('nobody asks for a preview')),
  checkRoom: () => Promise.resolve(),
  olderDisks: () => undefined,
});
const pairing = new Pairing({
  identity,
  peers,
  files,
  dataDirectory,
  clock,
  random,
  onTokenReuse: () => undefined,
});
const server = await PeerServer.listen({
  ...{ host: '127.0.0.1', port: 0, identity, peers, pairing, clock, random, log: silentLog },
  calls: receiver.calls,
  upload: receiver.upload,
});
process.send!({ port: server.address.port });
process.on('disconnect', () => process.exit(0));
