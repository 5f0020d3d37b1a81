import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { messageOf } from '../../src/lib/errors.ts';
import { randomBelow, systemRandom } from '../../src/lib/random.ts';
import type { TestApi } from './api.ts';
import type { LoneSite } from './lone-site.ts';
import { ended } from './paired-sites.ts';

/** So often an act is looked for that is not always come to: what is done at the same time ends in one order or the other. */
const TRIES_MAX = 5;
/** The name of no act. */
const NEVER = '';

/** Something that a person has a site do. */
export interface Command {
  /** Brings the site to where it begins. */
  readonly before?: (api: TestApi) => Promise<void>;
  /** Says it, and waits for its end. */
  readonly say: (api: TestApi) => Promise<unknown>;
  /** The last act of such a name is among those after which the site is killed in any case. */
  readonly always?: RegExp;
  /** What a person does at a site that was killed in the middle of it and serves again, with nothing under way. */
  readonly sayAgain: (api: TestApi) => Promise<unknown>;
  /** That it has been done, once. */
  readonly check: (api: TestApi) => Promise<void>;
}

/**
 * Has a site that is begun anew each time carry out a command, and kills its process after one of the acts that it consists of: after
 * each of them, one after the other, or after `kills` of them, which are told.
 */
export async function killedAmid(
  context: TestContext,
  lone: LoneSite,
  command: Command,
  kills: number,
): Promise<void> {
  const acts = await actsOf(lone, command);
  const wanted = kills < acts.length ? chosen(acts, kills, command.always) : acts;
  const failed: string[] = [];
  for (const act of wanted) {
    try {
      let tries = 1;
      while (!(await killedAfter(lone, command, act))) {
        assert.ok(tries < TRIES_MAX, 'the site does not come to it any more');
        tries += 1;
      }
      context.diagnostic(`killed after ${act}`);
    } catch (error) {
      failed.push(`after ${act}: ${messageOf(error)}`);
    }
  }
  context.diagnostic(`killed after ${wanted.length - failed.length} of ${acts.length} acts`);
  assert.deepEqual(failed, []);
}

/** Far from each other, others in each run. */
function chosen(acts: readonly string[], count: number, always?: RegExp): string[] {
  const sure = always ? [acts.findLast((act) => always.test(act))!] : [];
  const others = count - sure.length;
  const step = acts.length / others;
  const first = randomBelow(systemRandom, Math.floor(step));
  return [...sure, ...Array.from({ length: others }, (_, index) => acts[first + Math.floor(index * step)]!)];
}

async function actsOf(lone: LoneSite, { before, say }: Command): Promise<string[]> {
  const api = await lone.fresh();
  await before?.(api);
  await lone.site.endAfter(NEVER);
  await say(api);
  return lone.acts();
}

/** Kills the site right after that act, and has a person go on; false: it has not come to it. */
async function killedAfter(lone: LoneSite, command: Command, act: string): Promise<boolean> {
  const { before, say, sayAgain, check } = command;
  const { site } = lone;
  const api = await lone.fresh();
  await before?.(api);
  await site.endAfter(act);
  // Whoever asked hears of the end, or of nothing any more.
  const said = say(api).catch(() => undefined);
  await Promise.race([said, site.ended()]);
  await site.end('SIGKILL');
  await said;
  const last = (await lone.acts()).at(-1);
  const again = await site.serve();
  for (const job of await again.call('job.list')) await ended(again, job);
  await sayAgain(again);
  await check(again);
  return last === act;
}
