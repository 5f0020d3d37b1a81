import { request } from 'node:http';
import { sleep, systemClock } from '../src/lib/clock.ts';
import { runCommand } from '../src/lib/processes.ts';
import { say } from './say.ts';

/** Where the customers of the shop are: this host, in the network of the machines. */
const OWN_ADDRESS = '10.77.0.254/24';
export const ADDRESSES = { db: '10.77.0.2', app: '10.77.0.3', web: '10.77.0.4' } as const;
export type Tier = keyof typeof ADDRESSES;
export const TIERS = Object.keys(ADDRESSES) as Tier[];

const ORDER_LIMIT_MS = 10_000;
const NEVER = new AbortController().signal;

/** The bridges of the two sites. The customers are on one of them at a time, as their router would have it. */
export class ShopNetwork {
  readonly bridges: Readonly<Record<'alpha' | 'beta', string>>;

  constructor() {
    this.bridges = { alpha: `wsd${process.pid}a`, beta: `wsd${process.pid}b` };
  }

  async make(): Promise<void> {
    for (const bridge of Object.values(this.bridges)) {
      await runCommand('ip', ['link', 'add', bridge, 'type', 'bridge']);
      await runCommand('ip', ['link', 'set', bridge, 'up']);
    }
  }

  async remove(): Promise<void> {
    for (const bridge of Object.values(this.bridges)) await runCommand('ip', ['link', 'delete', bridge]);
  }

  /** From now on the customers reach the machines of this site. */
  async routeTo(site: 'alpha' | 'beta'): Promise<void> {
    say.line(`customers are routed to ${site}`);
    for (const bridge of Object.values(this.bridges)) {
      await runCommand('ip', ['address', 'flush', 'dev', bridge]);
    }
    await runCommand('ip', ['address', 'add', OWN_ADDRESS, 'dev', this.bridges[site]]);
  }
}

/** What the web front end says, which has asked the application, which has asked the database. */
export interface ShopAnswer {
  readonly text: string;
  readonly orders: number;
  readonly last: number;
}

/** Asks the shop, or places an order: answered when the database has it on its disk. Throws what keeps it from answering. */
export async function askShop(order?: number): Promise<ShopAnswer> {
  const query = order === undefined ? '' : `?order=${order}`;
  const text = (await textOf(`http://${ADDRESSES.web}/cgi-bin/tier${query}`)).trim();
  const [, orders, last = ''] = /: (\d+) orders, the last one ?(\d*)$/.exec(text) ?? [];
  if (orders === undefined) throw new Error(`the shop says: ${text}`);
  return { text, orders: Number(orders), last: Number(last) };
}

/** Asks again and again until the shop answers. */
export async function shopAnswers(): Promise<ShopAnswer> {
  const untilMs = systemClock.monotonicMs() + 60_000;
  for (;;) {
    try {
      return await askShop();
    } catch (error) {
      if (systemClock.monotonicMs() > untilMs) throw error;
      await sleep(systemClock, 200, NEVER);
    }
  }
}

function textOf(url: string): Promise<string> {
  return new Promise((resolve, reject) => {
    // A connection of its own: the machine at the other end may be another one than before.
    const asked = request(url, { agent: false, timeout: ORDER_LIMIT_MS }, (answer) => {
      let text = '';
      answer.setEncoding('utf8').on('data', (part: string) => {
        text += part;
      });
      answer.on('end', () => resolve(text));
      answer.on('error', reject);
    });
    asked.on('timeout', () => asked.destroy(new Error('the shop does not answer in time')));
    asked.on('error', reject);
    asked.end();
  });
}
