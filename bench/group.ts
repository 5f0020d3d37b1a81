/**
 * How long do four machines of two disks each stand still for one cut of them all? Lab guests, each under the writes of its
 * ledger; the pause is from the first stop sent until the last machine has confirmed that it runs. Beside it, from the same
 * machines in turn: the pause of a cut of one of them alone, and of a cut for which all guests are frozen first.
 *
 * Everything shares the processors with the guests. `node bench/group.ts [ROUNDS]`
 */
import { systemClock as clock } from '../src/lib/clock.ts';
import { newId, systemRandom } from '../src/lib/random.ts';
import { cutGroup, type GroupCutOutcome } from '../src/replication/index.ts';
import { type LabSites, labSites, sendAll } from '../test/support/lab-sites.ts';
import { atMost, median } from './support/figures.ts';
import { printHead } from './support/head.ts';
import { withScope } from './support/scope.ts';

const MACHINES = 4;
const ROUNDS = 20;
const PAUSE_TARGET_MS = 50;
/** Not what is measured: a cut that takes longer shall show as what it is. */
const LIMIT_MS = 10_000;

export async function run(rounds = ROUNDS): Promise<void> {
  await withScope(async (scope) => {
    const labs: LabSites[] = [];
    for (let machine = 0; machine < MACHINES; machine++) labs.push(await labSites(scope));
    for (const { ledger } of labs) await (await ledger()).reached(1, 120_000);
    const group = { groupId: newId(clock, systemRandom), name: 'bench' };
    const send = async () => {
      for (const { machine, sites } of labs) await sendAll(machine, sites.target);
    };
    const cutAll = async (copyType: string): Promise<GroupCutOutcome> => {
      const outcome = await cutGroup(labs[0]!.sites.protectedTools, {
        ...{ group, limitMs: LIMIT_MS },
        members: labs.map(({ machine }) => ({
          machineId: machine.record.machineId,
          name: machine.record.name,
          cut: (together) => machine.cut(copyType, together),
        })),
      });
      if (outcome.apart !== undefined) throw new Error(outcome.apart);
      await send();
      return outcome;
    };
    await cutAll('crash');
    const one: number[] = [];
    const all: number[] = [];
    const allFrozen: number[] = [];
    const frozenMs: number[] = [];
    for (let round = 0; round < rounds; round++) {
      one.push((await labs[round % MACHINES]!.machine.cut('crash')).pauseMs);
      await send();
      all.push((await cutAll('crash')).pauseMs);
      const { pauseMs, members } = await cutAll('app');
      allFrozen.push(pauseMs);
      frozenMs.push(...members.flatMap(({ cut }) => cut?.frozenMs ?? []));
    }
    print('one machine', one);
    print(`${MACHINES} machines`, all);
    print(`${MACHINES} machines, frozen`, allFrozen);
    console.log(`freeze to thaw of a guest for that: ${median(frozenMs).toFixed(0)} ms (median)`);
    console.log(
      `${MACHINES} machines of 2 disks stand still for ${atMost(median(all), PAUSE_TARGET_MS, 1)} ms (median of ${rounds})`,
    );
  });
}

function print(how: string, pauseMs: readonly number[]): void {
  const [median50, most] = [median(pauseMs), Math.max(...pauseMs)];
  console.log(`${how.padEnd(20)} pause ${median50.toFixed(1)} ms, most ${most.toFixed(1)} ms`);
}

if (import.meta.main) {
  await printHead();
  await run(Number(process.argv[2] ?? ROUNDS));
}
