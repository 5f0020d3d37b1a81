import { join } from 'node:path';
import { initSite } from '../../src/control/index.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { silentLog } from '../../src/lib/log.ts';
import { nodeFiles } from '../../src/lib/node-files.ts';
import { systemRandom } from '../../src/lib/random.ts';
import { type ServedSite, serveSite } from '../../src/server/index.ts';
import { TestApi } from './api.ts';
import type { CleanUp } from './temporary.ts';

const ANY_PORT = { host: '127.0.0.1', port: 0 };

export const SITE_TOOLS = { files: nodeFiles, clock: systemClock, random: systemRandom };

/** A site of its own data directory, served until the test ends; may be closed and served again meanwhile. */
export class TestSite {
  readonly dataDirectory: string;
  readonly recoveryKit: string;
  #served: ServedSite | undefined;

  private constructor(dataDirectory: string, recoveryKit: string) {
    this.dataDirectory = dataDirectory;
    this.recoveryKit = recoveryKit;
  }

  static async init(t: CleanUp, directory: string, name: string): Promise<TestSite> {
    const dataDirectory = join(directory, name);
    const settings = { api: ANY_PORT, peer: ANY_PORT };
    const { recoveryKit } = await initSite(SITE_TOOLS, { dataDirectory, name, settings });
    const site = new TestSite(dataDirectory, recoveryKit);
    t.after(() => site.close());
    return site;
  }

  async serve(): Promise<TestApi> {
    this.#served = await serveSite({ dataDirectory: this.dataDirectory, log: silentLog });
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
