import type { DeltaHeader } from '../../src/delta/index.ts';
import type { Json } from '../../src/lib/canonical-json.ts';
import { Failure } from '../../src/lib/errors.ts';
import {
  type CallHandler,
  PEER_ERRORS,
  type Peer,
  type UploadChunk,
  type UploadHandler,
} from '../../src/peer/index.ts';
import type { Acknowledgement, OfferAnswer, ReplicaDescription } from '../../src/replica/index.ts';
import {
  type OfferDetails,
  type ReplicationTarget,
  type RightsTarget,
  rightsAt,
  type SeedTarget,
} from '../../src/replication/index.ts';
import type { SimRandom } from './sim-random.ts';
import type { SimProcess } from './turns.ts';

/** How bad the network is, each as a probability for one message or one piece of a stream. */
export interface NetWeather {
  lost: number;
  doubled: number;
  cut: number;
  /** An upload reaches the other side long after its connection was given up here. */
  late: number;
}

export const GOOD_WEATHER: NetWeather = { lost: 0, doubled: 0, cut: 0, late: 0 };

/** The process that answers at the other side. */
export interface SimServer {
  readonly process: SimProcess;
  readonly calls: Readonly<Record<string, CallHandler>>;
  readonly upload: UploadHandler;
}

/** The connection between the sites. What it does to messages is what a real one does to them. */
export class SimNet {
  readonly #random: SimRandom;
  readonly #peer: Peer;
  readonly #server: () => SimServer | undefined;
  weather: NetWeather = GOOD_WEATHER;
  isPartitioned = false;

  constructor(o: { random: SimRandom; peer: Peer; server: () => SimServer | undefined }) {
    this.#random = o.random;
    this.#peer = o.peer;
    this.#server = o.server;
  }

  async call(from: SimProcess, name: string, body: Json): Promise<Json> {
    await from.turn(`call ${name}`, () => undefined);
    const server = this.#reach();
    if (this.#isLost(this.weather.lost)) throw await this.#silence(from);
    const answer = async () => {
      await server.process.turn(`hears ${name}`, () => undefined);
      return server.calls[name]!(this.#peer, copyOf(body), new AbortController().signal);
    };
    const first = untilEnd(server.process, answer());
    if (this.#isLost(this.weather.doubled)) {
      // The answer to the repetition goes nowhere, and so does its failure.
      void server.process
        .sleep(this.#random.below(50))
        .then(answer)
        .catch(() => undefined);
    }
    const result = await first;
    if (this.#isLost(this.weather.lost)) throw await this.#silence(from);
    return from.turn(`answer to ${name}`, () => copyOf(result));
  }

  async upload(from: SimProcess, session: string, stream: AsyncIterable<UploadChunk>): Promise<Json> {
    await from.turn('upload begins', () => undefined);
    const server = this.#reach();
    const isLate = this.#random.chance(this.weather.late);
    const pipe = new Pipe();
    const forget = from.onEnd(() => this.#breakSometime(pipe, server.process));
    const handled = (async () => {
      if (isLate) await server.process.sleep(this.#random.between(5, 400));
      await server.process.turn('hears upload', () => undefined);
      const source = pipe.source(server.process);
      return server.upload(this.#peer, session, source, pipe.signal);
    })();
    const ended = untilEnd(server.process, handled);
    let early: { error: unknown } | undefined;
    // The answer may come before the stream has ended.
    ended.catch((error: unknown) => {
      early = { error };
    });
    try {
      for await (const chunk of stream) {
        await from.turn('upload goes on', () => undefined);
        if (early) throw early.error;
        const bytes = chunk instanceof Uint8Array ? Buffer.from(chunk) : Buffer.concat([...chunk]);
        if (this.isPartitioned || this.#random.chance(this.weather.cut)) {
          pipe.push(bytes.subarray(0, this.#random.below(bytes.length + 1)));
          throw lost('PEER_CONNECTION_LOST');
        }
        pipe.push(bytes);
      }
      if (isLate && this.#random.chance(0.5)) throw lost('PEER_TIMEOUT');
      pipe.end();
      const result = await ended;
      if (this.#isLost(this.weather.lost)) throw await this.#silence(from);
      return await from.turn('upload answered', () => copyOf(result));
    } catch (error) {
      if (isLate && this.#random.chance(0.5)) pipe.end();
      this.#breakSometime(pipe, server.process);
      throw error;
    } finally {
      forget();
    }
  }

  #reach(): SimServer {
    const server = this.#server();
    if (!server || this.isPartitioned) throw lost('PEER_UNREACHABLE');
    return server;
  }

  #isLost(probability: number): boolean {
    return this.isPartitioned || this.#random.chance(probability);
  }

  /** No answer comes; after a while the caller gives up. */
  async #silence(from: SimProcess): Promise<Failure> {
    await from.sleep(this.#random.between(10, 300));
    return lost('PEER_TIMEOUT');
  }

  /** The other side learns of the end of a connection at once, or only when its watchdog barks. */
  #breakSometime(pipe: Pipe, server: SimProcess): void {
    if (this.#random.chance(0.5)) pipe.break();
    else server.clock.after(this.#random.between(5, 500), () => pipe.break());
  }
}

/** The bytes of one upload on their way. */
class Pipe {
  readonly #chunks: Buffer[] = [];
  readonly #controller = new AbortController();
  #state: 'open' | 'ended' | 'broken' = 'open';
  #wake: () => void = () => undefined;

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  push(bytes: Buffer): void {
    if (bytes.length > 0) this.#chunks.push(Buffer.from(bytes));
    this.#wake();
  }

  end(): void {
    if (this.#state === 'open') this.#state = 'ended';
    this.#wake();
  }

  break(): void {
    if (this.#state !== 'open') return;
    this.#state = 'broken';
    this.#controller.abort();
    this.#wake();
  }

  async *source(server: SimProcess): AsyncGenerator<Buffer> {
    for (;;) {
      await server.turn('upload read', () => undefined);
      const chunk = this.#chunks.shift();
      if (chunk) yield chunk;
      else if (this.#state === 'ended') return;
      else if (this.#state === 'broken') throw lost('PEER_CONNECTION_LOST');
      else {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    }
  }
}

/** `ReplicationTarget` over the simulated network, as `PeerTarget` is over the real one. */
export class SimTarget implements ReplicationTarget {
  readonly siteId: string;
  readonly #net: SimNet;
  readonly #process: SimProcess;

  constructor(o: { siteId: string; net: SimNet; process: SimProcess }) {
    this.siteId = o.siteId;
    this.#net = o.net;
    this.#process = o.process;
  }

  async describe(machineId: string): Promise<ReplicaDescription | null> {
    const answer = await this.#net.call(this.#process, 'replica.describe', { machineId });
    return answer as unknown as ReplicaDescription | null;
  }

  async offer(header: DeltaHeader, details: OfferDetails): Promise<OfferAnswer> {
    const body = { header, ...details, wallMs: this.#process.clock.wallMs() };
    const answer = await this.#net.call(this.#process, 'replica.offer', body as unknown as Json);
    return answer as unknown as OfferAnswer;
  }

  get rights(): RightsTarget {
    return rightsAt({ call: (name, body) => this.#net.call(this.#process, name, body ?? null) });
  }

  get seeds(): SeedTarget {
    return {
      announce: async (announcement, details, leaves) => {
        const body = { ...announcement, ...details, wallMs: this.#process.clock.wallMs() };
        const known = await this.#net.call(this.#process, 'replica.announce-seed', body as unknown as Json);
        const answer = known ?? (await this.#net.upload(this.#process, announcement.session, leaves));
        return answer as unknown as Acknowledgement;
      },
      keep: async (machineId, pointId) => {
        await this.#net.call(this.#process, 'replica.keep-for-seed', { machineId, pointId });
      },
    };
  }

  async upload(
    _machineId: string,
    session: string,
    stream: AsyncIterable<UploadChunk>,
  ): Promise<Acknowledgement> {
    return (await this.#net.upload(this.#process, session, stream)) as unknown as Acknowledgement;
  }
}

/** Fails as soon as the process ends that works on it: a connection does not outlive its process. */
function untilEnd<T>(process: SimProcess, work: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const forget = process.onEnd(() => reject(lost('PEER_CONNECTION_LOST')));
    if (!process.isAlive) reject(lost('PEER_CONNECTION_LOST'));
    work.then(resolve, reject).finally(forget);
  });
}

function lost(code: 'PEER_UNREACHABLE' | 'PEER_CONNECTION_LOST' | 'PEER_TIMEOUT'): Failure {
  return new Failure(code, PEER_ERRORS[code], 'the network failed');
}

function copyOf(value: Json): Json {
  return JSON.parse(JSON.stringify(value)) as Json;
}
