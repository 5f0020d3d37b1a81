import type { DiskImages, MachineConfiguration } from '../../../src/hypervisor/index.ts';
import type { FileSystem } from '../../../src/lib/files.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { Zones } from '../../../src/recovery-point/index.ts';
import { Replicas } from '../../../src/replica/index.ts';
import { type MachineRecord, ProtectedLayout, ProtectedMachine } from '../../../src/replication/index.ts';
import { AT_ONCE } from '../../support/actor.ts';
import { DirectTarget } from '../../support/direct-target.ts';
import { FakeHypervisor } from '../../support/fake-hypervisor.ts';
import { FakeImages, ImageLocks } from '../../support/fake-images.ts';
import { isSigned, simSigner } from '../signing.ts';
import { SimDisk } from '../sim-disk.ts';
import { SimFiles } from '../sim-files.ts';
import { SimRandom } from '../sim-random.ts';
import { SimProcess, Turns } from '../turns.ts';

export const MACHINE_ID = `${'0'.repeat(25)}m`;
export const MACHINE_NAME = 'leased';
/** The home of the machine, its recovery site and its witness, by the last letter of their ids. */
export const SITE_IDS = {
  P: `${'0'.repeat(25)}p`,
  R: `${'0'.repeat(25)}r`,
  W: `${'0'.repeat(25)}w`,
} as const;
export type SiteName = keyof typeof SITE_IDS;
export const SITE_NAMES = ['P', 'R', 'W'] as const;
export const RUN_DIRECTORY = '/run/machine';
export const DATA = '/data';
export const DISK = { diskId: 'system', sizeBytes: 65_536 } as const;
const RETENTION = { types: { crash: 1 } };

/** What a site of the simulation works with besides its files and clocks. */
export function imagesOn(files: FileSystem, locks = new ImageLocks(), owner?: object): DiskImages {
  return new FakeImages({ files, locks, ...(owner ? { owner } : {}) });
}

export function machineLayout(): ProtectedLayout {
  return new ProtectedLayout(DATA, MACHINE_ID);
}

interface MadeMachine {
  readonly siteId: string;
  readonly targetSiteId: string;
  readonly deviceName?: string;
}

/** Nothing of a made site differs from one run to the next. */
const { clock } = new SimProcess(new Turns(new SimRandom(1, 1)), 'set-up');

let made: Promise<Readonly<Record<SiteName, SimDisk>>> | undefined;

/** The disks of three sites: a machine at home at P and protected to R, which has one point of it. Made once, without faults. */
export async function madeSites(): Promise<Readonly<Record<SiteName, SimDisk>>> {
  made ??= makeSites();
  const { P, R, W } = await made;
  return { P: P.copy(), R: R.copy(), W: W.copy() };
}

async function makeSites(): Promise<Readonly<Record<SiteName, SimDisk>>> {
  const disks = { P: new SimDisk(), R: new SimDisk(), W: new SimDisk() };
  for (const name of SITE_NAMES) await new SimFiles(disks[name]).makeDirectory(DATA);
  const machine = await makeMachine(new SimFiles(disks.P), {
    siteId: SITE_IDS.P,
    targetSiteId: SITE_IDS.R,
  });
  const files = new SimFiles(disks.R);
  const replicas = await Replicas.open(
    {
      ...{ files, images: imagesOn(files), clock, log: silentLog, zones: new Zones() },
      isSignedBySource: isSigned,
    },
    DATA,
  );
  await machine.cut('crash');
  await machine.replicate(new DirectTarget({ siteId: SITE_IDS.R, sourceSiteId: SITE_IDS.P, replicas }));
  await new SimFiles(disks.P).syncDirectory('/');
  return disks;
}

/** A machine that is off, with an empty disk, protected to another site. Nothing goes wrong meanwhile. */
export async function makeMachine(
  files: SimFiles,
  { siteId, targetSiteId, deviceName = `drive-${DISK.diskId}` }: MadeMachine,
): Promise<ProtectedMachine> {
  for (const directory of ['/owner', RUN_DIRECTORY]) await files.makeDirectory(directory);
  const path = '/owner/system.raw';
  const file = await files.open(path, 'create');
  await file.truncate(DISK.sizeBytes);
  await file.sync();
  await file.close();
  await files.syncDirectory('/owner');
  const host = {
    machines: new Map(),
    start: () => Promise.reject(new Error('nothing runs yet')),
  };
  const disks = [{ ...DISK, deviceName, chain: [{ path, format: 'raw' as const }] }];
  const machine = await ProtectedMachine.create(
    {
      ...{ files, images: imagesOn(files), clock, random: new SimRandom(1, 1), log: silentLog },
      ...{ signer: simSigner, zones: new Zones(), siteId },
      hypervisor: new FakeHypervisor({ host, actor: AT_ONCE }),
    },
    machineLayout(),
    machineRecord(disks),
  );
  const gets = { retention: RETENTION, compression: false };
  await machine.protect({ targetSiteId, schedules: [], freezeLimitMs: 1000, ...gets });
  await machine.attach();
  return machine;
}

function machineRecord(disks: MachineRecord['disks']): MachineRecord {
  const configuration: MachineConfiguration = {
    name: MACHINE_NAME,
    uuid: '00000000-0000-4000-8000-000000000001',
    architecture: 'x86_64',
    chipset: 'q35',
    firmware: 'bios',
    cpus: 1,
    memoryBytes: 64 * 1024 * 1024,
    disks: [{ ...DISK, bus: 'virtio-blk' }],
    nics: [],
    guestAgent: true,
  };
  return {
    ...{ machineId: MACHINE_ID, name: MACHINE_NAME, kind: 'managed', createdAtMs: 0, epoch: 1 },
    ...{ configuration, disks, protection: null },
    sockets: { qmpPath: `${RUN_DIRECTORY}/qmp` },
  };
}
