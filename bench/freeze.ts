/**
 * For how long does an application-consistent copy hold a guest's writes? From the sending of the freeze to the confirmed thaw,
 * as the point says it: what the guest's own hooks do before the file systems are frozen is part of it. So a lab guest is
 * measured with its hook for SQLite, and without any.
 *
 * The guest's processor is translated where there is no KVM, and shared with the site. `node bench/freeze.ts [ROUNDS]`
 */
import { inGuest, labSites, sendAll } from '../test/support/lab-sites.ts';
import { atMost, median } from './support/figures.ts';
import { printHead } from './support/head.ts';
import { withScope } from './support/scope.ts';

const ROUNDS = 20;
const TARGET_MS = 100;

export async function run(rounds = ROUNDS): Promise<void> {
  await withScope(async (scope) => {
    const { machine, sites, ledger } = await labSites(scope);
    await (await ledger()).reached(1, 120_000);
    const frozen = async (how: string) => {
      const times: number[] = [];
      for (let round = 0; round < rounds; round++) {
        const { consistency, degraded, frozenMs } = await machine.cut('app');
        if (consistency !== 'application' || frozenMs === undefined)
          throw new Error(`no freeze: ${degraded}`);
        times.push(frozenMs);
        await sendAll(machine, sites.target);
      }
      const most = Math.max(...times);
      console.log(
        `freeze to thaw, ${how}: ${atMost(median(times), TARGET_MS, 0)} ms (median of ${rounds}), most ${most} ms`,
      );
    };
    await frozen('with the hook for SQLite');
    await inGuest(machine.record.sockets.agentPath!, 'rm /etc/qemu/fsfreeze-hook.d/*');
    await frozen('without hooks');
  });
}

if (import.meta.main) {
  await printHead();
  await run(Number(process.argv[2] ?? ROUNDS));
}
