import type { Json } from '../../../src/lib/canonical-json.ts';
import { type Clock, cancelled, withTimeout } from '../../../src/lib/clock.ts';
import { Failure, messageOf } from '../../../src/lib/errors.ts';
import {
  type CallHandler,
  PEER_ERRORS,
  type Peer,
  type PeerClient,
  type UploadChunk,
  type UploadHandler,
} from '../../../src/peer/index.ts';
import type { Claim } from '../../../src/recovery-point/index.ts';
import type { SimRandom } from '../sim-random.ts';
import { SimProcess, type Turns } from '../turns.ts';

/** The process that answers for a site. */
export interface CallServer {
  readonly process: SimProcess;
  readonly calls: Readonly<Record<string, CallHandler>>;
  readonly upload?: UploadHandler;
}

/** A call of one site at another. */
export interface AskedCall {
  readonly from: string;
  readonly to: string;
  readonly name: string;
  readonly body: Json;
}

/** One that has been answered there. */
export interface AnsweredCall extends AskedCall {
  readonly answer: Json;
}

/** How bad the network is: probabilities for one message. */
export interface CallWeather {
  lost: number;
  /** A request arrives once more, some time later. */
  doubled: number;
  /** A request or an answer is on its way for seconds. */
  late: number;
}

export const GOOD_CALLS: CallWeather = { lost: 0, doubled: 0, late: 0 };

export function chooseCallWeather(random: SimRandom): CallWeather {
  return {
    lost: random.pick([0, 0, 0.03, 0.15]),
    doubled: random.pick([0, 0.05, 0.3]),
    late: random.pick([0, 0, 0.05, 0.2]),
  };
}

/** As `PeerClient` has it. */
const CALL_TIMEOUT_MS = 30_000;
const LATE_MS_MAX = 9_000;

/**
 * The calls between sites, and what a network does to them: a small sibling of `SimNet`, for any number of sites. Uploads arrive when
 * they have been sent, as a whole or in part: what happens while one is under way is for `SimNet`.
 */
export class SimCalls {
  readonly #random: SimRandom;
  /** Messages on their way are nobody's: they arrive although their sender has ended. */
  readonly #wire: SimProcess;
  readonly #servers = new Map<string, CallServer>();
  /** Pairs of sites that do not hear each other. */
  readonly #broken = new Set<string>();
  readonly #onAsk: (call: AskedCall) => Promise<void>;
  readonly #onAnswer: (call: AnsweredCall) => Promise<void>;
  weather: CallWeather = GOOD_CALLS;
  lost = 0;

  /** `onAsk` and `onAnswer` are called before a question, or an answer, leaves its site. */
  constructor(o: {
    readonly random: SimRandom;
    readonly turns: Turns;
    readonly onAsk: (call: AskedCall) => Promise<void>;
    readonly onAnswer: (call: AnsweredCall) => Promise<void>;
  }) {
    this.#random = o.random;
    this.#wire = new SimProcess(o.turns, 'wire');
    this.#onAsk = o.onAsk;
    this.#onAnswer = o.onAnswer;
  }

  serve(siteId: string, server: CallServer | undefined): void {
    if (server) this.#servers.set(siteId, server);
    else this.#servers.delete(siteId);
  }

  cut(one: string, other: string): void {
    this.#broken.add(linkOf(one, other));
  }

  heal(one: string, other: string): void {
    this.#broken.delete(linkOf(one, other));
  }

  isCut(one: string, other: string): boolean {
    return this.#broken.has(linkOf(one, other));
  }

  /** What a process of a site calls the others by. */
  clientOf(
    from: string,
    process: SimProcess,
    clock: Clock,
  ): (to: string) => Pick<PeerClient, 'call' | 'upload'> {
    return (to) => ({
      upload: (session, chunks, o = {}) => {
        const late = () => failed('PEER_STALLED', `${to} took nothing`);
        const work = () => this.#upload({ from, to, process, session }, chunks);
        return withTimeout(clock, CALL_TIMEOUT_MS, (signal) => settledOr(work(), signal), late, o.signal);
      },
      call: (name, body, o = {}) => {
        const timeoutMs = o.timeoutMs ?? CALL_TIMEOUT_MS;
        const late = () => failed('PEER_TIMEOUT', `${to} did not answer`);
        const work = () => this.#exchange({ from, to, process, name, body: copyOf(body) });
        // As the real one: who gives up waiting calls nothing back.
        return withTimeout(clock, timeoutMs, (signal) => settledOr(work(), signal), late, o.signal);
      },
    });
  }

  async #exchange({ process, ...asked }: AskedCall & { readonly process: SimProcess }): Promise<Json> {
    const { from, to, name } = asked;
    await this.#onAsk(asked);
    await process.turn(`call ${spoken(name, asked.body)} at ${to.at(-1)}`, () => undefined);
    if (this.isCut(from, to) && this.#random.chance(0.5)) throw failed('PEER_UNREACHABLE', 'no route');
    const server = this.#servers.get(to);
    if (await this.#isLostOnItsWay(from, to)) return silence();
    const once = () => this.#answered(server, asked);
    const isDoubled = this.#random.chance(this.weather.doubled);
    const first = once();
    if (isDoubled) {
      // The answer to the repetition goes nowhere, and so does its failure.
      void this.#wire
        .sleep(this.#random.between(1, LATE_MS_MAX))
        .then(once)
        .catch(() => undefined);
    }
    const outcome = await first.then(
      (answer) => ({ answer }),
      (error: unknown) => ({ error }),
    );
    if (await this.#isLostOnItsWay(from, to)) return silence();
    return process.turn(`answer of ${to.at(-1)} to ${spoken(name, asked.body)}: ${said(outcome)}`, () => {
      if ('error' in outcome) throw outcome.error;
      return copyOf(outcome.answer);
    });
  }

  async #upload({ from, to, process, session }: Sent, chunks: AsyncIterable<UploadChunk>): Promise<Json> {
    await process.turn(`uploads to ${to.at(-1)}`, () => undefined);
    if (this.isCut(from, to)) throw failed('PEER_UNREACHABLE', 'no route');
    const sent: Buffer[] = [];
    for await (const chunk of chunks) {
      sent.push(chunk instanceof Uint8Array ? Buffer.from(chunk) : Buffer.concat([...chunk]));
      await process.turn('upload goes on', () => undefined);
    }
    const server = this.#servers.get(to);
    const isBroken = await this.#isLostOnItsWay(from, to);
    const arrived = isBroken ? sent.slice(0, this.#random.below(sent.length)) : sent;
    const work = async ({ process: there, upload }: CallServer) => {
      await there.turn(`hears an upload of ${from.at(-1)}`, () => undefined);
      const peer = { siteId: from, name: from } as Peer;
      return upload!(peer, session, received(arrived, isBroken), new AbortController().signal);
    };
    const answer = await alive(server, work);
    if (isBroken || (await this.#isLostOnItsWay(from, to)))
      throw failed('PEER_CONNECTION_LOST', 'it broke off');
    return process.turn(`upload answered by ${to.at(-1)}`, () => copyOf(answer));
  }

  async #isLostOnItsWay(from: string, to: string): Promise<boolean> {
    const { late, lost } = this.weather;
    const isLate = this.#random.chance(late);
    await this.#wire.sleep(this.#random.between(1, isLate ? LATE_MS_MAX : 40));
    const isLost = this.isCut(from, to) || this.#random.chance(lost);
    if (isLost) this.lost += 1;
    return isLost;
  }

  #answered(server: CallServer | undefined, { from, to, name, body }: AskedCall): Promise<Json> {
    return alive(server, async (server) => {
      await server.process.turn(`hears ${spoken(name, body)} of ${from.at(-1)}`, () => undefined);
      const peer = { siteId: from, name: from } as Peer;
      const answer = await server.calls[name]!(peer, copyOf(body), new AbortController().signal);
      await this.#onAnswer({ from, to, name, body, answer });
      return answer;
    });
  }
}

/** What is on its way from a process of a site to another site. */
interface Sent {
  readonly from: string;
  readonly to: string;
  readonly process: SimProcess;
  readonly session: string;
}

/** A connection outlives no process: what comes late comes to the one that it was sent to, or to none. */
async function alive<T>(
  server: CallServer | undefined,
  work: (server: CallServer) => Promise<T>,
): Promise<T> {
  if (!server?.process.isAlive) throw failed('PEER_UNREACHABLE', 'nobody listens');
  const ended = Promise.withResolvers<never>();
  const forget = server.process.onEnd(() => ended.reject(failed('PEER_CONNECTION_LOST', 'it has ended')));
  try {
    return await Promise.race([work(server), ended.promise]);
  } finally {
    forget();
  }
}

async function* received(sent: readonly Buffer[], isBroken: boolean): AsyncGenerator<Buffer> {
  yield* sent;
  if (isBroken) throw failed('PEER_CONNECTION_LOST', 'it broke off');
}

/** What is asked, for whoever reads the trace. */
function spoken(name: string, body: Json): string {
  const { kind = '', claim, withdrawal } = body as { kind?: string; claim?: Claim; withdrawal?: Claim };
  const by = withdrawal ?? claim;
  return `${name} ${kind} ${by ? `${by.epoch}${by.siteId.at(-1)}` : ''}`.trimEnd();
}

function said(outcome: { readonly answer: Json } | { readonly error: unknown }): string {
  if ('error' in outcome) return messageOf(outcome.error);
  return JSON.stringify(outcome.answer).slice(0, 160).replaceAll('0'.repeat(25), '');
}

/** Waiting ends with the signal; what was begun goes on. */
function settledOr<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(cancelled(signal));
    signal.addEventListener('abort', onAbort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}

/** No answer comes, ever. */
function silence(): Promise<never> {
  return new Promise(() => undefined);
}

type Lost = 'PEER_UNREACHABLE' | 'PEER_CONNECTION_LOST' | 'PEER_TIMEOUT' | 'PEER_STALLED';

function failed(code: Lost, said: string): Failure {
  return new Failure(code, PEER_ERRORS[code], said);
}

function linkOf(one: string, other: string): string {
  return [one, other].sort().join(' ');
}

function copyOf(value: Json): Json {
  return JSON.parse(JSON.stringify(value)) as Json;
}
