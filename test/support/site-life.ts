import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { exitOf } from '../../src/lib/processes.ts';
import type { ListedPoint, PointHistory } from './point-history.ts';
import { startedSites } from './site-until.ts';
import type { CleanUp } from './temporary.ts';
import type { TwoSites } from './two-sites.ts';

/** What `site-process.ts IDENTITY replicate` tells. */
export type LifeNews =
  | { readonly news: 'ready'; readonly state: string }
  /** What a kill left is sound, and the ledger of the newest point holds that much. */
  | { readonly news: 'sound'; readonly held: number }
  | { readonly news: 'points'; readonly points: readonly ListedPoint[] }
  | { readonly news: 'cut'; readonly cutId: string }
  | {
      readonly news: 'acknowledged';
      readonly pointId: string;
      readonly sequence: number;
      readonly wireBytes: number;
    };

/** Both sites as a process that copies without end until it is killed; what it tells goes into a history. */
export class SiteLife {
  /** What the newest point held of the ledger when this life began. */
  readonly held: number;
  readonly #child: ChildProcess;
  readonly #reading: Promise<{ hasNewCopy: boolean }>;

  private constructor(held: number, child: ChildProcess, reading: Promise<{ hasNewCopy: boolean }>) {
    this.held = held;
    this.#child = child;
    this.#reading = reading;
  }

  /** Resolves when the sites have found what the life before left, have checked it, and begin to copy. */
  static async begin(
    t: CleanUp,
    sites: Pick<TwoSites, 'directory' | 'identity'>,
    history: PointHistory,
  ): Promise<SiteLife> {
    const child = await startedSites(t, sites, ['replicate']);
    const sound = Promise.withResolvers<number>();
    const reading = follow(child, history, sound.resolve);
    const ended = reading.then(() => assert.fail('the process of the sites ended by itself'));
    return new SiteLife(await Promise.race([sound.promise, ended]), child, reading);
  }

  /** SIGKILL, at once. Tells whether a copy that was begun in this life has been acknowledged. */
  async kill(): Promise<{ hasNewCopy: boolean }> {
    assert.equal(this.#child.exitCode, null, 'the process of the sites ended by itself');
    this.#child.kill('SIGKILL');
    await exitOf(this.#child);
    return this.#reading;
  }
}

async function follow(
  child: ChildProcess,
  history: PointHistory,
  isSound: (held: number) => void,
): Promise<{ hasNewCopy: boolean }> {
  const cuts = new Set<string>();
  let hasNewCopy = false;
  try {
    for await (const line of createInterface({ input: child.stdout! })) {
      const told: LifeNews = JSON.parse(line);
      if (told.news === 'ready') assert.equal(told.state, 'running');
      if (told.news === 'sound') isSound(told.held);
      if (told.news === 'points') history.lists(told.points);
      if (told.news === 'cut') {
        history.cut(told.cutId);
        cuts.add(told.cutId);
      }
      if (told.news === 'acknowledged') {
        history.acknowledged(told);
        history.sent(told, told.wireBytes);
        hasNewCopy ||= cuts.has(told.pointId);
      }
    }
  } finally {
    // After a failure nothing of it is to be seen beside that.
    child.kill('SIGKILL');
  }
  return { hasNewCopy };
}
