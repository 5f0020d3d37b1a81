import { join } from 'node:path';
import type { SiteEvent } from '../../src/api/index.ts';
import { Wakeup } from '../../src/control/base/wakeup.ts';
import { initSite } from '../../src/control/index.ts';
import { type Clock, systemClock, withTimeout } from '../../src/lib/clock.ts';
import { silentLog } from '../../src/lib/log.ts';
import { nodeFiles } from '../../src/lib/node-files.ts';
import { systemRandom } from '../../src/lib/random.ts';
import { type ServedSite, serveSite } from '../../src/server/index.ts';
import { TestApi } from './api.ts';
import { endRunsOf } from './run-ends.ts';
import type { CleanUp } from './temporary.ts';

const EVENT_LIMIT_MS = 120_000;
const ANY_PORT = { host: '127.0.0.1', port: 0 };

/** The clock of a host whose time was set wrong. */
export function clockAheadBy(aheadMs: number): Clock {
  return { ...systemClock, wallMs: () => systemClock.wallMs() + aheadMs };
}

export const SITE_TOOLS = { files: nodeFiles, clock: systemClock, random: systemRandom };

/** A site of its own data directory, served until the test ends; may be closed and served again meanwhile. */
export class TestSite {
  readonly dataDirectory: string;
  readonly recoveryKit: string;
  readonly #clock: Clock;
  #served: ServedSite | undefined;

  private constructor(dataDirectory: string, recoveryKit: string, clock: Clock) {
    this.dataDirectory = dataDirectory;
    this.recoveryKit = recoveryKit;
    this.#clock = clock;
  }

  static async init(
    t: CleanUp,
    directory: string,
    name: string,
    clock: Clock = systemClock,
  ): Promise<TestSite> {
    const dataDirectory = join(directory, name);
    const settings = { api: ANY_PORT, peer: ANY_PORT };
    const { recoveryKit } = await initSite({ ...SITE_TOOLS, clock }, { dataDirectory, name, settings });
    const site = new TestSite(dataDirectory, recoveryKit, clock);
    t.after(async () => {
      await site.close();
      await endRunsOf(dataDirectory);
    });
    return site;
  }

  /**
   * Resolves with the next event that `wanted` accepts; fails when none has come after two minutes, which is long for
   * everything but a hang.
   */
  next(wanted: (event: SiteEvent) => boolean): Promise<SiteEvent> {
    let end: () => void = () => undefined;
    const arrival = new Promise<SiteEvent>((resolve) => {
      end = this.served.site.events.listen((event) => {
        if (wanted(event)) resolve(event);
      });
    });
    const late = () => new Error('the event did not come');
    return withTimeout(systemClock, EVENT_LIMIT_MS, () => arrival, late).finally(end);
  }

  /** What `look` finds, which is asked again after every event of the site until it finds something; fails as `next` does. */
  async until<T>(look: () => Promise<T | undefined>): Promise<T> {
    const happened = new Wakeup(systemClock);
    const end = this.served.site.events.listen(() => happened.ring());
    const never = new AbortController().signal;
    const looking = async (): Promise<T> => {
      for (;;) {
        const found = await look();
        if (found !== undefined) return found;
        await happened.wait(Number.POSITIVE_INFINITY, never);
      }
    };
    const late = () => new Error('it did not come about');
    return withTimeout(systemClock, EVENT_LIMIT_MS, looking, late).finally(end);
  }

  async serve(): Promise<TestApi> {
    this.#served = await serveSite({ dataDirectory: this.dataDirectory, log: silentLog, clock: this.#clock });
    return TestApi.of(this.dataDirectory);
  }

  get served(): ServedSite {
    if (!this.#served) throw new Error('the site is not served');
    return this.#served;
  }

  async close(): Promise<void> {
    const served = this.#served;
    this.#served = undefined;
    await served?.close();
  }
}
