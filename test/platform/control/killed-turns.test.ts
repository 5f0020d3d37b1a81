/** A machine that is handed over, adopted, replicated back, and now and then brought back by an undoing, while either site, or both, are killed at any instant. */
import assert from 'node:assert/strict';
import { readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import type { BranchView, MachineView } from '../../../src/api/index.ts';
import { processesOfRun } from '../../../src/hypervisor/index.ts';
import { sleep, systemClock } from '../../../src/lib/clock.ts';
import { filesBelow } from '../../../src/lib/host-files.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import { randomBelow, systemRandom } from '../../../src/lib/random.ts';
import type { TestApi } from '../../support/api.ts';
import { type KillableSite, killablePair } from '../../support/killable-site.ts';
import { BOX, ended, machineThatIsOff, resultOf } from '../../support/paired-sites.ts';
import { BY_HAND, holds, tipAt, verifiedCopy, writeToTip } from '../../support/site-of-box.ts';
import { sized, sizedLimitMs } from '../../support/size.ts';
import { assertSoundLayers } from '../../support/sound-layers.ts';

const MIB = 1024 * 1024;
const DISK_BYTES = 40 * MIB;
/** What no copy but the first may bring over the wire again; chance does not compress. */
const BASE_BYTES = 8 * MIB;
const RECORDS = 24;
/** A record a turn, with what belongs to it. */
const TURN_BYTES_MAX = 3 * MIB;
const NOW = { ...BOX, body: {} } as const;
const PLAN = { params: { plan: 'turn' } };
/** About how long the acts take that are over at once, and the others. */
const SHORT_MS = 120;
const LONG_MS = 1500;
const LIMIT = { timeout: sizedLimitMs({ normal: 300_000, full: 14_400_000 }) };

interface Place {
  readonly site: KillableSite;
  api: TestApi;
}

/** What a person sees of a site. */
interface Seen {
  readonly place: Place;
  readonly view: MachineView;
  /** What failovers have made of its present replica. */
  readonly branches: readonly BranchView[];
}

/** Something that a person does next, at one site; begun again if it was cut short. */
interface Act {
  readonly name: string;
  readonly at: Place;
  readonly work: (api: TestApi) => Promise<unknown>;
  /** It is a call, and no job. */
  readonly isShort?: boolean;
}

async function see(place: Place): Promise<Seen> {
  const view = await place.api.call('vm.show', BOX);
  const branches = view.replica ? await place.api.call('failover.list', BOX) : [];
  return { place, view, branches: branches.filter(({ adopted }) => !adopted) };
}

function isHolder({ view }: Seen): boolean {
  return view.protected !== undefined && view.protected.heldBy === undefined;
}

/** How one turn goes, from the site where the machine is at home. */
class Turn {
  readonly byPlan = randomBelow(systemRandom, 2) === 0;
  readonly isUndone = randomBelow(systemRandom, 3) === 0;
  readonly from: Place;
  isWritten = false;
  isCopied = false;
  isTidied = false;
  wasUndone = false;

  constructor(from: Place) {
    this.from = from;
  }

  /** Whether the machine is where the turn was to bring it, and is off. */
  isOver({ place, view }: Seen): boolean {
    if (view.protected!.presence.state !== 'stopped') return false;
    return this.isUndone ? this.isCopied && this.wasUndone : place !== this.from;
  }

  /** What is done where the machine is at home. */
  atHome({ place: at, view }: Seen, other: Seen): Act {
    const { presence, protection } = view.protected!;
    if (presence.state === 'running')
      return {
        name: 'stop',
        at,
        isShort: true,
        work: (api) => api.call('vm.stop', { ...BOX, body: { force: true } }),
      };
    const [left] = other.branches;
    if (left) {
      const params = { machine: 'box', branch: left.branchId };
      const work = async (api: TestApi) => resultOf(api, await api.call('failover.cleanup', { params }));
      return { name: 'discard', at: other.place, work };
    }
    if (!protection)
      return {
        name: 'protect',
        at,
        isShort: true,
        work: (api) => api.call('vm.protect', { ...BOX, body: BY_HAND }),
      };
    if (!this.isCopied) {
      const work = async (api: TestApi) => {
        await verifiedCopy(api);
        this.isCopied = true;
      };
      return { name: 'copy', at, work };
    }
    if (!this.isTidied)
      return { name: 'tidy', at: other.place, isShort: true, work: (api) => this.#tidy(api) };
    const work = async (api: TestApi) =>
      this.byPlan
        ? resultOf(api, (await api.call('plan.run', { ...PLAN, body: { mode: 'cede' } })).job)
        : resultOf(api, await api.call('failover.cede', NOW));
    return { name: this.byPlan ? 'cede by plan' : 'cede', at, work };
  }

  /** Removes what nothing lies upon any more. */
  async #tidy(api: TestApi): Promise<void> {
    for (const { generation, needs } of await api.call('generation.list', BOX)) {
      if (needs.length === 0) await api.call('generation.remove', { params: { machine: 'box', generation } });
    }
    this.isTidied = true;
  }

  /** What is done where it was brought up, or may be. */
  away({ place: at, view, branches }: Seen): Act {
    const isHeld = view.replica!.right === 'held';
    if (isHeld && this.isUndone) {
      this.wasUndone = true;
      const work = async (api: TestApi) =>
        resultOf(api, await api.call('failover.undo', { ...BOX, body: { graceMs: 0 } }));
      return { name: 'undo', at, work };
    }
    if (isHeld && branches.some(({ running }) => running))
      return { name: 'adopt', at, isShort: true, work: (api) => api.call('failover.adopt', NOW) };
    const [ended] = branches;
    if (isHeld && ended) {
      const params = { machine: 'box', branch: ended.branchId };
      const body = { probes: [] };
      const work = async (api: TestApi) =>
        resultOf(api, await api.call('failover.restart', { params, body }));
      return { name: 'restart', at, work };
    }
    const work = async (api: TestApi) =>
      this.byPlan
        ? resultOf(api, (await api.call('plan.run', { ...PLAN, body: { mode: 'take' } })).job)
        : resultOf(api, await api.call('failover.take', { ...BOX, body: { probes: [] } }));
    return { name: this.byPlan ? 'take by plan' : 'take', at, work };
  }

  askBack({ place: at }: Seen): Act {
    const work = async (api: TestApi) => {
      await api.call('failover.withdraw', NOW);
    };
    return { name: 'withdraw', at, isShort: true, work };
  }
}

/** What a person who looks at both sites does next; undefined: one site has to hear something first. */
function nextAct(turn: Turn, seen: readonly [Seen, Seen]): Act | undefined {
  const holders = seen.filter(isHolder);
  const held = seen.filter(({ view }) => view.replica?.right === 'held');
  assert.ok(holders.length + held.length <= 1, `both hold it: ${told(seen)}`);
  const [holder] = holders;
  if (holder) return turn.atHome(holder, seen.find((one) => one !== holder)!);
  if (held[0]) return turn.away(held[0]);
  const offered = seen.find(({ view }) => view.replica?.right === 'offered');
  if (offered) return turn.away(offered);
  const givenUp = seen.find(({ view }) => view.replica?.right === 'given-up');
  if (givenUp) return turn.askBack(seen.find((one) => one !== givenUp)!);
  // The other site may have promised to follow it, and the answer was lost: whoever asks again gets the same one.
  if (turn.wasUndone) return turn.askBack(seen.find(({ place }) => place === turn.from)!);
  const isUnderWay = seen.some(({ view }) => view.protected?.heldBy?.how === 'offered');
  assert.ok(isUnderWay, `nobody holds it: ${told(seen)}`);
  return undefined;
}

function told(seen: readonly Seen[]): string {
  return JSON.stringify(
    seen.map(({ view }) => [view.epoch, view.protected?.heldBy, view.replica?.right, view.broken]),
  );
}

/** What jobs had begun has ended, also what the next process goes on with. */
async function allEnded(places: readonly Place[]): Promise<void> {
  for (const { api } of places) for (const job of await api.call('job.list')) await ended(api, job);
}

/** The processes of machines and branches that run below a site. */
async function processesAt({ site }: Place): Promise<number[]> {
  const run = join(site.dataDirectory, 'run');
  const found = await Promise.all((await readdir(run)).map((name) => processesOfRun(join(run, name))));
  return found.flat();
}

/** Of all generations; not the branches, and nothing that is on its way. */
async function layersAt({ site }: Place): Promise<string[]> {
  const below = await Promise.all(
    ['protected', 'replicas'].map((kind) => filesBelow(join(site.dataDirectory, kind))),
  );
  return below.flat().filter((path) => path.endsWith('.qcow2') && path.includes('/disks/'));
}

test(
  'F4 S0.17 a machine that turns again and again is at one site, whole, whichever site is killed at whatever instant',
  LIMIT,
  async (context) => {
    const { t, directory, ...pair } = await killablePair(context);
    const places: readonly [Place, Place] = [
      { site: pair.home, api: pair.homeApi },
      { site: pair.away, api: pair.awayApi },
    ];
    const disk = join(directory, 'disk.qcow2');
    const base = join(directory, 'base.raw');
    await writeFile(base, systemRandom.bytes(BASE_BYTES));
    await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', disk, String(DISK_BYTES)]);
    await runCommand('qemu-io', ['-f', 'qcow2', '-c', `write -q -s ${base} 0 ${BASE_BYTES}`, disk]);
    const body = machineThatIsOff({ path: disk, sizeBytes: DISK_BYTES, format: 'qcow2' });
    await places[0].api.call('vm.add', { body });
    await places[0].api.call('vm.protect', { ...BOX, body: BY_HAND });
    const first = await verifiedCopy(places[0].api);
    for (const { api } of places)
      await api.call('plan.put', { body: { plan: 'turn', machines: { box: {} } } });

    const kills = sized({ what: 'F4: kills amid turns', normal: 3, full: 200 });
    const received = new Map<string, number>();
    /** By slot: what was written there last. */
    const ledger = new Map<number, number>();
    const happened: string[] = [];
    let turn = new Turn(places[0]);
    let turns = 0;
    let killed = 0;

    const bothSeen = async (): Promise<readonly [Seen, Seen]> => [await see(places[0]), await see(places[1])];

    /** Its own records, on the disks of the site where it is. */
    const assertWhole = async (api: TestApi) => {
      const tip = await tipAt(api);
      for (const [slot, pattern] of ledger)
        assert.ok(await holds(tip, pattern, BASE_BYTES + slot * MIB), `record ${pattern} in slot ${slot}`);
    };

    const write = async ({ place: { api }, view }: Seen) => {
      if (turn.isWritten || view.protected!.presence.state === 'running') return;
      const slot = turns % RECORDS;
      const pattern = 1 + (turns % 250);
      await writeToTip(api, pattern, BASE_BYTES + slot * MIB);
      ledger.set(slot, pattern);
      turn.isWritten = true;
    };

    /** Nothing crosses twice: all that a point after the first brings is what was written since. */
    const assertNoResync = async () => {
      for (const { api } of places) {
        for (const { pointId, receivedBytes = 0 } of await api.call('point.list', BOX)) {
          received.set(pointId, receivedBytes);
          const isFirst = pointId === first.pointId;
          assert.ok(
            isFirst || receivedBytes < TURN_BYTES_MAX,
            `${receivedBytes} bytes crossed: ${happened.join('; ')}`,
          );
        }
      }
    };

    for (;;) {
      const seen = await bothSeen();
      const holder = seen.find(isHolder);
      if (holder && turn.isOver(holder)) {
        await assertWhole(holder.place.api);
        await assertNoResync();
        if (killed >= kills) break;
        turn = new Turn(holder.place);
        turns += 1;
      }
      if (holder) await write(holder);
      const act = nextAct(turn, seen);
      if (!act) {
        await sleep(systemClock, 100);
        continue;
      }
      const isKilled = killed < kills && randomBelow(systemRandom, 2) === 0;
      happened.push(`${act.name} at ${places.indexOf(act.at)}${isKilled ? ', killed' : ''}`);
      if (!isKilled) {
        await act.work(act.at.api);
        continue;
      }
      killed += 1;
      const cut = act.work(act.at.api).then(
        () => 'done',
        (error: Error) => error.message,
      );
      await sleep(systemClock, randomBelow(systemRandom, act.isShort ? SHORT_MS : LONG_MS));
      const which = randomBelow(systemRandom, 3);
      const victims = places.filter((_, index) => which === 2 || which === index);
      await Promise.all(victims.map(({ site }) => site.end('SIGKILL')));
      const runs = (await Promise.all(places.map(processesAt))).flat();
      assert.ok(runs.length <= 1, `both run it: ${happened.slice(-8).join('; ')}`);
      for (const place of places) await assertSoundLayers(await layersAt(place));
      for (const victim of victims) victim.api = await victim.site.serve();
      happened.push(`(${await cut})`);
      await allEnded(places);
    }

    const seen = await bothSeen();
    const holder = seen.find(isHolder)!;
    const other = seen.find((one) => one !== holder)!;
    assert.equal(seen.filter(isHolder).length, 1);
    await assertWhole(holder.place.api);
    await assertNoResync();
    assert.deepEqual((await Promise.all(places.map(processesAt))).flat(), [], 'no process is left');
    // What it is now goes over as a difference, and is there what it is here.
    if (!holder.view.protected!.protection)
      await holder.place.api.call('vm.protect', { ...BOX, body: BY_HAND });
    const { pointId } = await verifiedCopy(holder.place.api);
    await assertNoResync();
    const layers = await layersAt(other.place);
    const copied = layers.find((path) => path.endsWith(`${pointId}.qcow2`))!;
    await runCommand('qemu-img', [
      'compare',
      '-U',
      '-f',
      'qcow2',
      '-F',
      'qcow2',
      await tipAt(holder.place.api),
      copied,
    ]);
    context.diagnostic(
      `${killed} kills, ${turns + 1} turns, ${received.size} points, ${Math.max(...received.values())} bytes for the largest`,
    );
    context.diagnostic(happened.join('; '));
  },
);
