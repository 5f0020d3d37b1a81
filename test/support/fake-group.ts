import type { ImageFile, ImageReader, RunningMachine } from '../../src/hypervisor/index.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { silentLog } from '../../src/lib/log.ts';
import { newId, systemRandom } from '../../src/lib/random.ts';
import { createEmptyLayer } from '../../src/qcow2/index.ts';
import { Zones } from '../../src/recovery-point/index.ts';
import {
  cutGroup,
  type GroupCutOutcome,
  ProtectedLayout,
  ProtectedMachine,
} from '../../src/replication/index.ts';
import { simSigner } from '../simulation/signing.ts';
import { SimDisk } from '../simulation/sim-disk.ts';
import { SimFiles } from '../simulation/sim-files.ts';
import { type Actor, AT_ONCE } from './actor.ts';
import { type FakeHost, FakeHypervisor, type MachineCommand, type Mishap } from './fake-hypervisor.ts';
import { FakeImages, ImageLocks } from './fake-images.ts';
import { FakeMachine } from './fake-machine.ts';

const DISK_BYTES = 1024 * 1024;
const RECORD_BYTES = 4096;

/** A protected machine of two disks on memory, and what goes wrong with its commands. */
export interface FakeMember {
  readonly machine: ProtectedMachine;
  readonly fake: () => FakeMachine;
  /** Somebody starts it on its owner's files, as if there were no layers. */
  readonly runOnOrigins: () => Promise<void>;
  mishaps: Partial<Record<MachineCommand, Mishap>>;
}

/** Protected machines of one site, without QEMU. */
export interface FakeGroup {
  readonly members: readonly FakeMember[];
  readonly files: SimFiles;
  cut(o?: { copyType?: string; hypervisor?: Pick<FakeHypervisor, 'whilePaused'> }): Promise<GroupCutOutcome>;
  /** One writer for all disks of all machines: the next record is written when the one before is durable. */
  write(count: number): Promise<void>;
  /** The records that the points of one cut hold, ascending. */
  recordsAt(outcome: GroupCutOutcome): Promise<number[]>;
}

export async function fakeGroup(
  names: readonly string[],
  o: { sameTarget?: boolean } = {},
): Promise<FakeGroup> {
  const files = new SimFiles(new SimDisk());
  const locks = new ImageLocks();
  const images = new FakeImages({ files, locks });
  for (const directory of ['/data', '/owner']) await files.makeDirectory(directory);
  const targetSiteId = newId(systemClock, systemRandom);
  const group = { groupId: newId(systemClock, systemRandom), name: 'shop' };
  const host: FakeHost = {
    machines: new Map(),
    start: async ({ qmpPath }, disks) => {
      const machine = await FakeMachine.start({
        files,
        locks,
        process: AT_ONCE,
        disks: disks.map((disk) => ({ ...disk })),
      });
      host.machines.set(qmpPath, machine);
      return machine;
    },
  };
  const members: FakeMember[] = [];
  const makeMember = async (name: string): Promise<FakeMember> => {
    const machineId = newId(systemClock, systemRandom);
    const sockets = { qmpPath: `/run/${name}` };
    const disks: { diskId: string; deviceName: string; chain: ImageFile[]; sizeBytes: number }[] = [];
    for (const diskId of ['one', 'two']) {
      const path = `/owner/${name}-${diskId}.qcow2`;
      await createEmptyLayer(files, path, { sizeBytes: DISK_BYTES, backing: null }, { sync: true });
      const chain = [{ path, format: 'qcow2' as const }];
      disks.push({ diskId, deviceName: `drive-${diskId}`, chain, sizeBytes: DISK_BYTES });
    }
    await host.start(sockets, disks, { paused: false });
    const self = { mishaps: {} } as FakeMember;
    const mishap = (command: MachineCommand) => self.mishaps[command];
    const tools = {
      ...{ files, images, clock: systemClock, random: systemRandom, log: silentLog, zones: new Zones() },
      ...{ siteId: newId(systemClock, systemRandom), signer: simSigner },
      hypervisor: new FakeHypervisor({ host, actor: slowToCut(5 * members.length), mishap }),
    };
    const machine = await ProtectedMachine.create(tools, new ProtectedLayout('/data', machineId), {
      ...{ machineId, name, kind: 'attached', createdAtMs: 0, epoch: 1, sockets, disks, protection: null },
      configuration: {
        ...{ name, uuid: '00000000-0000-4000-8000-000000000001', architecture: 'x86_64', chipset: 'q35' },
        ...{ firmware: 'bios', cpus: 1, memoryBytes: 2 ** 26, nics: [], guestAgent: true },
        disks: disks.map(({ diskId, sizeBytes }) => ({ diskId, sizeBytes, bus: 'virtio-blk' as const })),
      },
    });
    await machine.protect({
      ...{ schedules: [], freezeLimitMs: 1000 },
      targetSiteId: o.sameTarget === false ? newId(systemClock, systemRandom) : targetSiteId,
      ...{ retention: { types: { crash: 4 } }, compression: false },
    });
    const fake = () => host.machines.get(sockets.qmpPath)!;
    const runOnOrigins = async () => {
      const { gone } = machine.running!;
      fake().kill();
      await gone;
      await host.start(sockets, disks, { paused: false });
    };
    return Object.assign(self, { machine, fake, runOnOrigins });
  };
  for (const name of names) members.push(await makeMember(name));
  const places = members.flatMap((member) => ['one', 'two'].map((diskId) => ({ member, diskId })));
  const placeOf = (record: number) => ({
    ...places[record % places.length]!,
    offset: Math.floor(record / places.length) * RECORD_BYTES,
  });
  let written = 0;
  return {
    members,
    files,
    cut: ({ copyType = 'crash', hypervisor = new FakeHypervisor({ host, actor: AT_ONCE }) } = {}) =>
      cutGroup(
        { hypervisor, clock: systemClock, random: systemRandom },
        {
          ...{ group, limitMs: 5_000 },
          members: members.map(({ machine }) => ({
            machineId: machine.record.machineId,
            name: machine.record.name,
            cut: (together) => machine.cut(copyType, together),
          })),
        },
      ),
    async write(count) {
      for (const end = written + count; written < end; written++) {
        const { member, diskId, offset } = placeOf(written);
        while (member.fake().isPaused) await new Promise(setImmediate);
        await member.fake().guestWrite(`drive-${diskId}`, offset, Buffer.alloc(RECORD_BYTES, 1));
      }
    },
    async recordsAt(outcome) {
      const found: number[] = [];
      await using readers = new AsyncDisposableStack();
      const opened = new Map<string, ImageReader>();
      for (let record = 0; record < written; record++) {
        const { member, diskId, offset } = placeOf(record);
        const { cut } = outcome.members.find(
          ({ machineId }) => machineId === member.machine.record.machineId,
        )!;
        const { path } = cut!.sealed[diskId]!;
        if (!opened.has(path)) {
          const chain = member.machine.chain(diskId);
          const at = chain.findIndex((image) => image.path === path);
          opened.set(path, readers.use(await images.open(chain.slice(0, at + 1))));
        }
        const byte = Buffer.alloc(1);
        await opened.get(path)!.readInto(byte, offset);
        if (byte[0] === 1) found.push(record);
      }
      return found;
    },
  };
}

/** Machines of one host are not cut at the same moment when nobody sees to it. */
function slowToCut(turns: number): Actor {
  return {
    async turn(label, effect) {
      for (let turn = 0; label === 'cut sent' && turn < turns; turn++) await new Promise(setImmediate);
      return effect();
    },
  };
}

/** A hypervisor that does the work and stops nothing: what a common cut must not be. */
export const NOT_STOPPING: Pick<FakeHypervisor, 'whilePaused'> = {
  async whilePaused(machines: readonly RunningMachine[], _limitMs: number, work: () => Promise<void>) {
    await work();
    return { together: true, pausedMs: 1, eachMs: machines.map(() => 1) };
  },
};
