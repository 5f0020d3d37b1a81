import { sleep, systemClock } from '../../src/lib/clock.ts';

const LOOK_EVERY_MS = 100;

/** What `look` finds as soon as it finds something, where nothing tells of it: another process, another site. The test's limit is its end. */
export async function eventually<T>(look: () => Promise<T | undefined>): Promise<T> {
  for (;;) {
    const found = await look();
    if (found !== undefined) return found;
    await sleep(systemClock, LOOK_EVERY_MS);
  }
}
