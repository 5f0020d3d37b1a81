import { type Clock, throwIfAborted } from '../lib/clock.ts';
import { Failure, messageOf, systemCodeOf } from '../lib/errors.ts';
import type { Random } from '../lib/random.ts';
import { qmpFailure } from './errors.ts';
import { LineSocket } from './line-socket.ts';
import { decodeReply, parseFields, type Reply } from './messages.ts';
import { StringCutter } from './string-cutter.ts';
import { type Waiting, waitingFor } from './waiting.ts';

/**
 * Longest reply of a guest that is read. The largest that is asked for is the captured output of a program:
 * two streams of at most 1 MiB each, in base64 2.8 MB. A longer one is dropped while it comes in.
 */
const AGENT_LINE_BYTES_MAX = 4 * 1024 * 1024;

/** Flushes the agent's parser, and marks the answer to `guest-sync-delimited`. Never part of UTF-8. */
const DELIMITER = 0xff;

export interface RequestOptions {
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
  /** Strings of the reply are cut off after so many bytes; a longer reply is not refused for them. */
  readonly stringBytesMax?: number;
}

/** What the next line is taken for; without it lines are late or uncalled for, and are dropped. */
type Awaited =
  | { readonly what: 'sync'; readonly id: number; readonly waiting: Waiting<void> }
  | { readonly what: 'reply'; readonly waiting: Waiting<Reply> };

/**
 * Request and reply over the guest agent's channel, which has no ids of its own on old agents, may still
 * hold bytes of earlier clients, and ends in a guest that may say anything.
 *
 * Requests run one after the other. Each is preceded by `guest-sync-delimited` with a fresh random id, and
 * is sent only once that was answered: late, double and stray lines come before that answer and are dropped,
 * and an agent that hangs never gets a command that it would carry out long after its caller gave up.
 *
 * Source: QEMU, `docs/interop/qemu-ga.rst` and `qga/qapi-schema.json` (guest-sync-delimited).
 */
export class AgentChannel {
  readonly #path: string;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #socket: LineSocket;
  #awaited: Awaited | undefined;
  /** While a reply is awaited of which long strings are of no interest. */
  #cutter: StringCutter | undefined;
  #lastTurn: Promise<void> = Promise.resolve();
  #ended: Failure | undefined;

  private constructor(path: string, clock: Clock, random: Random, socket: LineSocket) {
    this.#path = path;
    this.#clock = clock;
    this.#random = random;
    this.#socket = socket;
  }

  /** Throws QMP_AGENT_UNREACHABLE. That it connects says nothing yet about the guest. */
  static async connect(o: {
    path: string;
    clock: Clock;
    random: Random;
    signal?: AbortSignal | undefined;
  }): Promise<AgentChannel> {
    let socket: LineSocket;
    try {
      socket = await LineSocket.connect(o.path, o.signal);
    } catch (error) {
      if (error instanceof Failure) throw error;
      const context = { path: o.path, system: systemCodeOf(error) };
      // The queue of clients that wait for the socket is short; when it is full the kernel says so.
      if (context.system === 'EAGAIN') {
        throw qmpFailure('QMP_AGENT_NO_ANSWER', `other clients hold ${o.path}`, { context });
      }
      const message = `cannot connect to ${o.path}: ${messageOf(error)}`;
      throw qmpFailure('QMP_AGENT_UNREACHABLE', message, { context, cause: error });
    }
    const channel = new AgentChannel(o.path, o.clock, o.random, socket);
    channel.#listen();
    return channel;
  }

  /** Whether the agent answers at all. QMP_AGENT_NO_ANSWER. */
  sync(timeoutMs: number, signal?: AbortSignal): Promise<void> {
    return this.#inTurn(() => this.#sync(timeoutMs, signal));
  }

  /**
   * One command. `timeoutMs` counts from the moment when earlier requests of this channel are done and
   * covers the synchronisation too.
   *
   * QMP_AGENT_NO_ANSWER: it was not sent. QMP_AGENT_TIMEOUT: it was sent, and may still be carried out.
   * QMP_AGENT_COMMAND_FAILED: class and description in the context; both are the guest's words.
   */
  request(
    command: string,
    args: object | undefined,
    { timeoutMs, signal, stringBytesMax }: RequestOptions,
  ): Promise<unknown> {
    return this.#inTurn(async () => {
      const startMs = this.#clock.monotonicMs();
      await this.#sync(timeoutMs, signal);
      const leftMs = Math.max(1, timeoutMs - (this.#clock.monotonicMs() - startMs));
      const waiting = this.#await<Reply>('reply', command, leftMs, signal);
      this.#awaited = { what: 'reply', waiting };
      // The answer begins on a new line, and the next synchronisation comes after it.
      this.#cutter = stringBytesMax === undefined ? undefined : new StringCutter(stringBytesMax);
      this.#sendCommand(command, args);
      return this.#valueOf(command, await waiting.promise);
    });
  }

  /**
   * One command that answers only when it fails (`guest-shutdown`). Resolves when the agent answers something
   * else after it, or has gone, or is silent for `timeoutMs`.
   */
  announce(command: string, args: object | undefined, timeoutMs: number): Promise<void> {
    return this.#inTurn(async () => {
      await this.#sync(timeoutMs);
      const waiting = this.#await<Reply>('reply', command, timeoutMs);
      this.#awaited = { what: 'reply', waiting };
      this.#sendCommand(command, args);
      // A ping behind it is answered by an agent that took the command and still lives.
      this.#sendCommand('guest-ping');
      let reply: Reply;
      try {
        reply = await waiting.promise;
      } catch (error) {
        if (error instanceof Failure && ['QMP_AGENT_TIMEOUT', 'QMP_AGENT_DISCONNECTED'].includes(error.code))
          return;
        throw error;
      }
      this.#valueOf(command, reply);
    });
  }

  async close(): Promise<void> {
    this.#end(qmpFailure('QMP_AGENT_DISCONNECTED', `the connection to ${this.#path} was closed here`));
    await this.#socket.close();
  }

  async #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const before = this.#lastTurn;
    const turn = Promise.withResolvers<void>();
    this.#lastTurn = turn.promise;
    await before;
    try {
      if (this.#ended) throw this.#ended;
      return await work();
    } finally {
      this.#awaited = undefined;
      this.#cutter = undefined;
      turn.resolve();
    }
  }

  async #sync(timeoutMs: number, signal?: AbortSignal): Promise<void> {
    throwIfAborted(signal);
    const id = this.#random.bytes(6).readUIntBE(0, 6);
    const waiting = this.#await<void>('sync', 'guest-sync-delimited', timeoutMs, signal);
    this.#awaited = { what: 'sync', id, waiting };
    this.#socket.send(Buffer.of(DELIMITER));
    this.#sendCommand('guest-sync-delimited', { id });
    await waiting.promise;
  }

  #await<T>(what: Awaited['what'], command: string, timeoutMs: number, signal?: AbortSignal): Waiting<T> {
    const context = { command, timeoutMs: Math.round(timeoutMs), path: this.#path };
    const waiting = waitingFor<T>({
      clock: this.#clock,
      timeoutMs,
      onTimeout: () =>
        what === 'sync'
          ? qmpFailure('QMP_AGENT_NO_ANSWER', `no guest agent answers at ${this.#path}`, { context })
          : qmpFailure('QMP_AGENT_TIMEOUT', `${command} was not answered in ${context.timeoutMs} ms`, {
              context,
            }),
      signal,
    });
    if (this.#ended) waiting.reject(this.#ended);
    return waiting;
  }

  #sendCommand(command: string, args?: object): void {
    this.#socket.send(`${JSON.stringify({ execute: command, arguments: args })}\n`);
  }

  #valueOf(command: string, reply: Reply): unknown {
    if ('value' in reply) return reply.value;
    throw qmpFailure('QMP_AGENT_COMMAND_FAILED', `${command}: ${reply.error.desc}`, {
      context: { command, class: reply.error.class, desc: reply.error.desc },
    });
  }

  #listen(): void {
    this.#socket.listen(
      {
        ...{ lineBytesMax: AGENT_LINE_BYTES_MAX, restartByte: DELIMITER },
        filter: (chunk) => this.#cutter?.push(chunk) ?? chunk,
      },
      {
        onLine: (line, delimited) => this.#onLine(line, delimited),
        onTooLong: () => {
          if (this.#awaited?.what !== 'reply') return;
          this.#awaited.waiting.reject(
            qmpFailure(
              'QMP_AGENT_REPLY_TOO_LONG',
              `the guest's reply has more than ${AGENT_LINE_BYTES_MAX} bytes`,
            ),
          );
        },
        onClosed: (cause) =>
          this.#end(
            qmpFailure('QMP_AGENT_DISCONNECTED', `${this.#path} ended the connection`, {
              context: { path: this.#path, system: systemCodeOf(cause) },
              cause,
            }),
          ),
      },
    );
  }

  #onLine(line: Buffer, delimited: boolean): void {
    const awaited = this.#awaited;
    if (!awaited) return;
    if (awaited.what === 'sync') {
      if (delimited && parseFields(line)?.return === awaited.id) awaited.waiting.resolve();
      return;
    }
    // A delimited line answers some synchronisation, never a command.
    if (delimited) return;
    const message = parseFields(line);
    const reply = message && decodeReply(message);
    if (reply) awaited.waiting.resolve(reply);
    else awaited.waiting.reject(agentNonsense('it answered with something that is no reply'));
  }

  #end(failure: Failure): void {
    this.#ended ??= failure;
    this.#awaited?.waiting.reject(this.#ended);
  }
}

/** The failure for a guest that answers, but not in the shape that the agent's schema gives. */
export function agentNonsense(what: string): Failure {
  return qmpFailure('QMP_AGENT_PROTOCOL', `the guest agent does not keep to its protocol: ${what}`);
}
