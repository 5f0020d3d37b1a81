/** QEMU killed in the middle of merging layers into the owner's files. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { QemuMachine } from '../../../src/hypervisor/qemu/qemu-machine.ts';
import { sleep, systemClock } from '../../../src/lib/clock.ts';
import { systemRandom } from '../../../src/lib/random.ts';
import { verifyPoint } from '../../../src/replica/index.ts';
import type { ProtectedMachine } from '../../../src/replication/index.ts';
import { SimRandom } from '../../simulation/sim-random.ts';
import {
  assertLedger,
  assertSound,
  assertWholeReplica,
  copyAndSend,
  FEW_POINTS,
  inGuest,
  labHistory,
  labSites,
  listedIn,
  sendAll,
} from '../../support/lab-sites.ts';
import { sized, sizedLimitMs } from '../../support/size.ts';

const MIB = 1024 * 1024;
/** Of a merge of one disk QEMU tells: created, running, waiting, pending, concluded, null. The disks take turns. */
const EVENTS_EACH = 6;
const CREATED = [1, 1 + EVENTS_EACH];
/** A merge goes on for some twenty milliseconds after each of them. */
const DELAY_MS_MAX = 20;
/** One that is slowed down takes a quarter of a second at the least. */
const SLOW_BYTES_PER_SECOND = 16 * MIB;
const SLOW_DELAY_MS_MAX = 200;
const LIMIT = { timeout: sizedLimitMs({ normal: 300_000, full: 14_400_000 }) };

/** What QEMU tells of the merges of one copy. */
class Merges {
  /** By job, which is by disk, in the order in which they began. */
  readonly #states = new Map<string, string>();
  readonly #ended: () => void;
  readonly #awaited: number;
  readonly #reached = Promise.withResolvers<void>();
  #events = 0;

  constructor(machine: ProtectedMachine, awaited: number) {
    this.#awaited = awaited;
    this.#ended = machine.onEvent(({ name, data }) => {
      if (name !== 'JOB_STATUS_CHANGE') return;
      const { id, status } = data as { id: string; status: string };
      this.#states.set(id, status);
      this.#events += 1;
      if (this.#events === this.#awaited) this.#reached.resolve();
    });
  }

  /** Resolves with the event that is awaited, counted from 1; never, if there are fewer. */
  get reached(): Promise<void> {
    return this.#reached.promise;
  }

  /** Of which disk the merge was in the middle when the last event came, if any was. */
  end(): 'first' | 'second' | 'none' {
    this.#ended();
    const running = [...this.#states.values()].indexOf('running');
    return (['first', 'second'] as const)[running] ?? 'none';
  }
}

test('S0.14 SIGKILL of QEMU in the middle of a merge costs nothing', LIMIT, async (t) => {
  const seed = systemRandom.bytes(4).readUInt32BE();
  t.diagnostic(`seed ${seed}`);
  const chance = new SimRandom(seed, 1);
  const lab = await labSites(t);
  const { machine, sites } = lab;
  const { images } = sites.protectedTools;
  const ledger = await lab.ledger();
  await ledger.reached(20, 60_000);
  const history = labHistory(FEW_POINTS.types.crash);
  await copyAndSend(machine, sites.target, 'crash', history);
  ledger.close();
  const kills = sized({ what: 'S0.14: kills of QEMU in a merge', normal: 2, full: 100 });
  const amid = { first: 0, second: 0, none: 0 };
  for (let i = 0; i < kills; i++) {
    const port = await lab.ledger();
    const { seq } = await port.next(60_000);
    const filledBytes = await fillDisks(machine, chance);
    const { cutId } = await machine.cut('crash');
    history.cut(cutId, filledBytes);
    const { gone, processId } = machine.running!;
    // In every other round chance has room.
    const isSlow = i % 2 === 0;
    if (isSlow) mergeSlowly(machine);
    const merges = new Merges(machine, isSlow ? chance.pick(CREATED) : chance.between(1, 2 * EVENTS_EACH));
    const sending = sendAll(machine, sites.target, history).catch((error: unknown) => {
      // It may end with whatever the death of QEMU makes of it; what is left is looked at below.
      if (error instanceof assert.AssertionError) throw error;
    });
    await Promise.race([merges.reached, sending]);
    await sleep(systemClock, chance.below(isSlow ? SLOW_DELAY_MS_MAX : DELAY_MS_MAX));
    process.kill(processId!, 'SIGKILL');
    await gone;
    await sending;
    port.close();
    amid[merges.end()] += 1;
    assert.equal((await machine.attach()).state, 'stopped');
    await assertSound(sites, machine, seq, history);
    await machine.start();
    await sendAll(machine, sites.target, history);
    const { pointId } = await copyAndSend(machine, sites.target, 'crash', history);
    await assertLedger(images, (disk) => lab.replica().chain(pointId, disk), seq);
    await verifyPoint(sites.replicaTools, lab.replica(), pointId);
    history.lists(listedIn(lab.replica()));
    await lab.replica().retire(FEW_POINTS, () => false);
    for (const disk of await machine.running!.disks()) assert.ok(disk.chain.length <= 3);
  }
  t.diagnostic(`${kills} kills, amid the merges of ${JSON.stringify(amid)} disks; ${history}`);
  assert.ok(amid.first + amid.second > 0, 'no merge was under way at any kill');
  await assertWholeReplica(sites, 0, history);
});

/** Gives both disks something to merge, 8 to 32 MiB together. Returns how much. */
async function fillDisks(machine: ProtectedMachine, chance: SimRandom): Promise<number> {
  const sizes = [chance.between(4, 16) * MIB, chance.between(4, 16) * MIB] as const;
  const fill = (file: string, bytes: number) =>
    `labtool fill --file ${file} --bytes ${bytes} --seed ${chance.word()} --pattern random`;
  const script = `${fill('/filled', sizes[0])} && ${fill('/data/filled', sizes[1])} && sync`;
  await inGuest(machine.record.sockets.agentPath!, script);
  return sizes[0] + sizes[1];
}

/** From now on this QEMU merges at a limited speed. */
function mergeSlowly({ running }: ProtectedMachine): void {
  assert(running instanceof QemuMachine);
  const { monitor } = running;
  const execute = monitor.execute.bind(monitor);
  monitor.execute = (command, args, options) =>
    execute(command, command === 'block-commit' ? { ...args, speed: SLOW_BYTES_PER_SECOND } : args, options);
}
