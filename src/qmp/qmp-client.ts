import type { Socket } from 'node:net';
import type { Clock } from '../lib/clock.ts';
import { Failure, messageOf, systemCodeOf } from '../lib/errors.ts';
import { qmpFailure } from './errors.ts';
import { LineSocket } from './line-socket.ts';
import {
  decodeEvent,
  decodeGreeting,
  decodeReply,
  type Fields,
  PAUSE_GUARD_ID,
  parseFields,
  type QmpEvent,
  type QmpGreeting,
} from './messages.ts';
import { failed, type Waiting, waitingFor } from './waiting.ts';

/** `query-qmp-schema` of QEMU 7.2 is 170 KB in one line, `query-named-block-nodes` grows with the chain. */
const QMP_LINE_BYTES_MAX = 16 * 1024 * 1024;
const GREETING_TIMEOUT_MS = 2000;
const COMMAND_TIMEOUT_MS = 10_000;

export interface QmpConnectOptions {
  /** Path of the Unix socket, at most 107 bytes. */
  readonly path: string;
  readonly clock: Clock;
  readonly greetingTimeoutMs?: number;
  readonly signal?: AbortSignal;
}

interface Pending {
  readonly command: string;
  readonly waiting: Waiting<unknown>;
}

/**
 * A client of one QMP monitor. Commands may overlap; replies are matched by id, so their order is free.
 * Events reach every subscriber synchronously, in the order in which QEMU sent them, and before the promise
 * of any reply that came after them continues.
 *
 * The connection ends once and for good: by `close`, by the other side, or by the first thing said that is
 * not QMP. Everything pending then rejects with what `closed` resolves to, or with QMP_DISCONNECTED after
 * `close`. A new connection is a new client.
 */
export class QmpClient implements AsyncDisposable {
  readonly #path: string;
  readonly #clock: Clock;
  readonly #socket: LineSocket;
  readonly #pending = new Map<number, Pending>();
  /** Ids of commands that nobody waits for any more; their late replies are dropped. */
  readonly #abandoned = new Set<number>();
  readonly #listeners = new Set<(event: QmpEvent) => void>();
  readonly #expected = new Set<{ matches: (event: QmpEvent) => boolean; waiting: Waiting<QmpEvent> }>();
  readonly #closed = Promise.withResolvers<Failure | undefined>();
  #greeting: QmpGreeting | undefined;
  #greetingWaiting: Waiting<QmpGreeting> | undefined;
  #nextId = 1;
  #ended: Failure | undefined;
  #closedByUs = false;

  private constructor(path: string, clock: Clock, socket: LineSocket) {
    this.#path = path;
    this.#clock = clock;
    this.#socket = socket;
  }

  /**
   * Connects, waits for the greeting and negotiates (`qmp_capabilities`).
   *
   * QMP_UNREACHABLE: nobody listens. QMP_NO_GREETING: somebody listens but serves another client; QEMU
   * accepts one client per socket and lets the next wait without a word. QMP_PROTOCOL: it is not QMP.
   */
  static async connect(o: QmpConnectOptions): Promise<QmpClient> {
    const { path, clock, greetingTimeoutMs = GREETING_TIMEOUT_MS, signal } = o;
    const noGreeting = () =>
      qmpFailure(
        'QMP_NO_GREETING',
        `${path} gave no greeting in ${greetingTimeoutMs} ms: another client holds this monitor`,
        { context: { path, greetingTimeoutMs } },
      );
    let socket: LineSocket;
    try {
      socket = await LineSocket.connect(path, signal);
    } catch (error) {
      if (error instanceof Failure) throw error;
      // The queue of clients that wait for a monitor is short; when it is full the kernel says so.
      if (systemCodeOf(error) === 'EAGAIN') throw noGreeting();
      throw qmpFailure('QMP_UNREACHABLE', `cannot connect to ${path}: ${messageOf(error)}`, {
        context: { path, system: systemCodeOf(error) },
        cause: error,
      });
    }
    const client = new QmpClient(path, clock, socket);
    try {
      const waiting = waitingFor<QmpGreeting>({
        clock,
        timeoutMs: greetingTimeoutMs,
        onTimeout: noGreeting,
        signal,
      });
      client.#greetingWaiting = waiting;
      client.#listen();
      await waiting.promise;
      await client.execute('qmp_capabilities', undefined, signal ? { signal } : {});
      return client;
    } catch (error) {
      await client.close();
      throw error;
    }
  }

  get greeting(): QmpGreeting {
    // A client is handed out by `connect` only after it was greeted.
    return this.#greeting!;
  }

  /** Where it is connected to. */
  get path(): string {
    return this.#path;
  }

  /** The connection itself, for a child process that shares it. */
  get shared(): Socket {
    return this.#socket.shared;
  }

  /** Settles once: undefined after `close`, else why the connection ended. Never rejects. */
  get closed(): Promise<Failure | undefined> {
    return this.#closed.promise;
  }

  /**
   * Runs a command and resolves with its `return` value, whose shape is for the caller to check.
   *
   * QMP_COMMAND_FAILED carries QEMU's `class` and `desc` in its context. After QMP_TIMEOUT or an abort the
   * command may still be carried out: QMP has no way to take it back.
   */
  execute<T = unknown>(
    command: string,
    args?: object,
    o: { timeoutMs?: number; signal?: AbortSignal } = {},
  ): Promise<T> {
    if (this.#ended) return failed(this.#ended);
    const timeoutMs = o.timeoutMs ?? COMMAND_TIMEOUT_MS;
    const id = this.#nextId++;
    const waiting = waitingFor<unknown>({
      clock: this.#clock,
      timeoutMs,
      onTimeout: () =>
        qmpFailure('QMP_TIMEOUT', `${command} was not answered in ${timeoutMs} ms`, {
          context: { command, timeoutMs, path: this.#path },
        }),
      onEnd: (how) => {
        if (this.#pending.delete(id) && how !== 'answer') this.#abandoned.add(id);
      },
      signal: o.signal,
    });
    if (o.signal?.aborted) return waiting.promise as Promise<T>;
    this.#pending.set(id, { command, waiting });
    this.#socket.send(`${JSON.stringify({ execute: command, arguments: args, id })}\n`);
    return waiting.promise as Promise<T>;
  }

  /** Hands every event to `listener` until the returned function is called. */
  subscribe(listener: (event: QmpEvent) => void): () => void {
    // A wrapper of its own, so that the same function may subscribe twice and leave once.
    const entry = (event: QmpEvent) => listener(event);
    this.#listeners.add(entry);
    return () => this.#listeners.delete(entry);
  }

  /**
   * The first event from now on that matches. Armed at once: call it before the command that causes the
   * event and await it after. QMP_EVENT_TIMEOUT after `timeoutMs`.
   */
  expectEvent(
    matches: (event: QmpEvent) => boolean,
    o: { timeoutMs: number; signal?: AbortSignal },
  ): Promise<QmpEvent> {
    if (this.#ended) return failed(this.#ended);
    const waiting = waitingFor<QmpEvent>({
      clock: this.#clock,
      timeoutMs: o.timeoutMs,
      onTimeout: () =>
        qmpFailure('QMP_EVENT_TIMEOUT', `the event did not come in ${o.timeoutMs} ms`, {
          context: { timeoutMs: o.timeoutMs, path: this.#path },
        }),
      onEnd: () => this.#expected.delete(entry),
      signal: o.signal,
    });
    const entry = { matches, waiting };
    if (!o.signal?.aborted) this.#expected.add(entry);
    return waiting.promise;
  }

  /** Ends the connection; the machine goes on. Idempotent. */
  async close(): Promise<void> {
    if (!this.#ended) this.#closedByUs = true;
    this.#end(qmpFailure('QMP_DISCONNECTED', `the connection to ${this.#path} was closed here`));
    await this.#socket.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #listen(): void {
    this.#socket.listen(
      { lineBytesMax: QMP_LINE_BYTES_MAX },
      {
        onLine: (line) => this.#onLine(line),
        onTooLong: () => this.#violated(`it sent a line of more than ${QMP_LINE_BYTES_MAX} bytes`),
        onClosed: (cause) =>
          this.#end(
            qmpFailure('QMP_DISCONNECTED', `${this.#path} ended the connection`, {
              context: { path: this.#path, system: systemCodeOf(cause) },
              cause,
            }),
          ),
      },
    );
  }

  #onLine(line: Buffer): void {
    if (this.#ended) return;
    const wrong = this.#take(parseFields(line));
    if (wrong) this.#violated(wrong);
  }

  /** Takes one message; returns what is wrong with it, if anything. */
  #take(message: Fields | undefined): string | undefined {
    if (!message) return 'it sent a line that is not a JSON object';
    if (!this.#greeting) return this.#takeGreeting(message);
    return 'event' in message ? this.#takeEvent(message) : this.#takeReply(message);
  }

  /**
   * A client that is connected in the moment in which the machine starts may hear of RESUME before it is greeted:
   * QEMU holds events back only once it has opened the monitor. Nobody has asked for such an event yet.
   */
  #takeGreeting(message: Fields): string | undefined {
    if (decodeEvent(message)) return undefined;
    this.#greeting = decodeGreeting(message);
    if (!this.#greeting) return 'its first line is not a greeting';
    this.#greetingWaiting?.resolve(this.#greeting);
    return undefined;
  }

  #takeEvent(message: Fields): string | undefined {
    const event = decodeEvent(message);
    if (!event) return 'it sent an event without name or timestamp';
    for (const entry of [...this.#expected]) {
      if (entry.matches(event)) entry.waiting.resolve(event);
    }
    for (const listener of [...this.#listeners]) listener(event);
    return undefined;
  }

  #takeReply(message: Fields): string | undefined {
    const reply = decodeReply(message);
    if (!reply) return 'it sent something that is neither event nor reply';
    const { id } = message;
    if (id === PAUSE_GUARD_ID) return undefined;
    if (typeof id !== 'number') return 'it sent a reply without id';
    if (this.#abandoned.delete(id)) return undefined;
    const pending = this.#pending.get(id);
    if (!pending) return 'it answered a command that was not sent';
    if ('value' in reply) {
      pending.waiting.resolve(reply.value);
    } else {
      const { class: errorClass, desc } = reply.error;
      pending.waiting.reject(
        qmpFailure('QMP_COMMAND_FAILED', `${pending.command}: ${desc}`, {
          context: { command: pending.command, class: errorClass, desc },
        }),
      );
    }
    return undefined;
  }

  #violated(what: string): void {
    this.#end(
      qmpFailure('QMP_PROTOCOL', `${this.#path} does not speak QMP: ${what}`, {
        context: { path: this.#path },
      }),
    );
    void this.#socket.close();
  }

  #end(failure: Failure): void {
    if (this.#ended) return;
    this.#ended = failure;
    this.#closed.resolve(this.#closedByUs ? undefined : failure);
    this.#greetingWaiting?.reject(failure);
    for (const { waiting } of [...this.#pending.values()]) waiting.reject(failure);
    for (const { waiting } of [...this.#expected]) waiting.reject(failure);
    this.#abandoned.clear();
    this.#listeners.clear();
  }
}
