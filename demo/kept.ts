import { sleep, systemClock } from '../src/lib/clock.ts';
import type { DemoSite } from './demo-site.ts';
import { say } from './say.ts';

const LOOK_EVERY_MS = 200;
const FENCED_LIMIT_MS = 30_000;

export interface Kept {
  readonly alpha: DemoSite;
  readonly beta: DemoSite;
  readonly machine: string;
  /** What the recovered machine runs on. */
  readonly branchId: string | null;
  readonly directory: string;
}

/**
 * Serves the site that was killed again, waits until it has learnt that it is not the one that writes any more, and leaves both
 * sites running. Says how to look around, and how to end everything.
 */
export async function leaveRunning({ alpha, beta, machine, branchId, directory }: Kept): Promise<void> {
  say.chapter('The protected site comes back');
  await alpha.serve();
  const told = await conflictAt(alpha);
  say.line(told ?? 'it has not heard of the failover yet');
  for (const site of [alpha, beta]) site.leaveRunning();
  const at = (site: DemoSite, act: string) => `    bin/warmsite.mjs --data ${site.dataDirectory} ${act}`;
  const cleanUp =
    branchId === null ? [] : [at(beta, `failover cleanup ${machine} ${branchId} --discard-writes`)];
  console.log(
    [
      '',
      '  Both sites serve on. At beta the recovered machine runs:',
      at(beta, `point list ${machine}`),
      at(beta, `failover list ${machine}`),
      at(beta, `failover test ${machine}`),
      '  At alpha the machine is off, as the disaster has left it, and nothing of it is sent any more:',
      at(alpha, `vm show ${machine}`),
      at(alpha, 'alert list'),
      '  End everything with',
      ...cleanUp,
      `    kill ${alpha.processId} ${beta.processId}`,
      `    for i in $(seq 100); do kill -0 ${alpha.processId} || kill -0 ${beta.processId} || break; sleep 0.1; done 2>/dev/null`,
      `    rm -r ${directory}`,
    ].join('\n'),
  );
}

/** What the site says of the failover that took place without it; undefined if it says nothing for half a minute. */
async function conflictAt(site: DemoSite): Promise<string | undefined> {
  const limitMs = systemClock.monotonicMs() + FENCED_LIMIT_MS;
  while (systemClock.monotonicMs() < limitMs) {
    const fenced = (await site.alerts()).find(({ code }) => code === 'PROTECTION_FENCED');
    if (fenced) return fenced.message;
    await sleep(systemClock, LOOK_EVERY_MS);
  }
  return undefined;
}
