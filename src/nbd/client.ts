import { type Clock, cancelled, throwIfAborted, withTimeout } from '../lib/clock.ts';
import type { Failure } from '../lib/errors.ts';
import { addressText, type NbdAddress } from './address.ts';
import { NbdConnection, shakeHands } from './connection.ts';
import { nbdFailure } from './errors.ts';
import { exportInfo, type NbdExportInfo } from './export-info.ts';
import { type Agreement, checkName } from './handshake.ts';
import { type NbdBlockExtent, NbdRequest, type RequestParts } from './request.ts';
import { COMMAND, COMMAND_FLAG } from './wire.ts';

/** How long a server may be silent unless told otherwise: a flush to slow disks takes many seconds. */
const TIMEOUT_MS = 60_000;
/** Connections to one export; more never made anything faster in measurements of this kind. */
const CONNECTIONS_MAX = 16;
/** Metadata contexts asked for on one connection. */
const CONTEXTS_MAX = 16;
/** One request that carries no payload (zeroes, trim) covers at most this, so that none takes minutes. */
const EFFECT_BYTES_MAX = 256 * 1024 * 1024;
/** One block status request covers at most this: replies stay small and the server answers soon. */
const STATUS_BYTES_MAX = 1024 * 1024 * 1024;
/** Source of zeroes for servers that cannot write them by themselves. */
const ZERO_BYTES = 1024 * 1024;

export interface NbdConnectOptions {
  readonly address: NbdAddress;
  readonly exportName: string;
  /** Metadata contexts to ask for; `info.contexts` says which of them were granted. */
  readonly contexts?: readonly string[];
  /** At most this many sockets; more than one only where the server says that it is safe. Default 1. */
  readonly connections?: number;
  readonly clock: Clock;
  /** Limit for connecting, and for the server's silence while a request is under way. Default 60,000. */
  readonly timeoutMs?: number;
  /** Ends the attempt to connect; without effect afterwards. */
  readonly signal?: AbortSignal;
}

/**
 * A client of one NBD export.
 *
 * Any number of requests may be under way; they are sent in the order of the calls and answered in any order.
 * Requests that overlap are not ordered against each other: wait for the first. A method resolves when the
 * server has confirmed all of it, and not before.
 *
 * A request that the server answers with an error rejects its own promise only (NBD_REQUEST_FAILED, `errno` in
 * the context). The loss of a connection, a server that is silent for too long and anything that breaks the
 * protocol end the whole client: all that is under way fails with NBD_DISCONNECTED, NBD_TIMEOUT or
 * NBD_PROTOCOL, and so does every later call. The client never reconnects by itself, because only its user
 * knows what must be done again.
 *
 * Offsets and lengths are bytes, multiples of `info.minimumBlockBytes`, within `info.sizeBytes`; anything else is
 * NBD_REQUEST_INVALID before a byte is sent.
 */
export class NbdClient implements AsyncDisposable {
  readonly info: NbdExportInfo;
  /** Resolves when all sockets are gone: with undefined after `close`, else with the reason. */
  readonly closed: Promise<Failure | undefined>;
  readonly #connections: readonly NbdConnection[];
  readonly #contextIds: ReadonlyMap<string, number>;

  private constructor(
    info: NbdExportInfo,
    connections: readonly NbdConnection[],
    contextIds: ReadonlyMap<string, number>,
  ) {
    this.info = info;
    this.#connections = connections;
    this.#contextIds = contextIds;
    this.closed = endOfAll(connections);
  }

  /**
   * Throws NBD_UNREACHABLE, NBD_TIMEOUT, NBD_TLS_FAILED, NBD_TLS_REQUIRED, NBD_EXPORT_UNKNOWN,
   * NBD_NEGOTIATION_REFUSED, NBD_UNSUPPORTED, NBD_PROTOCOL, NBD_DISCONNECTED, or CANCELLED; nothing stays open then.
   */
  static async connect(o: NbdConnectOptions): Promise<NbdClient> {
    const contexts = [...new Set(o.contexts ?? [])];
    const wanted = o.connections ?? 1;
    checkConnect(o, contexts, wanted);
    throwIfAborted(o.signal);
    const timeoutMs = o.timeoutMs ?? TIMEOUT_MS;
    const opened: { connection: NbdConnection; agreement: Agreement }[] = [];
    const open = async (signal: AbortSignal): Promise<void> => {
      const { transport, reader, agreement } = await shakeHands(o.address, o.exportName, contexts, signal);
      const connection = new NbdConnection({ ...o, transport, timeoutMs, structured: agreement.structured });
      connection.start(reader);
      opened.push({ connection, agreement });
      // The caller has gone while the last reply came.
      if (signal.aborted) await connection.close();
    };
    try {
      await withTimeout(
        o.clock,
        timeoutMs,
        async (signal) => {
          await open(signal);
          const { agreement } = opened[0]!;
          const { multiConn, readOnly } = exportInfo(0, agreement.transmissionFlags, agreement.blocks, []);
          if (!multiConn && !readOnly) return;
          const more = Array.from({ length: wanted - 1 }, () => open(signal));
          for (const outcome of await Promise.allSettled(more)) {
            if (outcome.status === 'rejected') throw outcome.reason;
          }
        },
        () =>
          nbdFailure(
            'NBD_TIMEOUT',
            `${addressText(o.address)} did not complete the handshake in ${timeoutMs} ms`,
          ),
        o.signal,
      );
      throwIfAborted(o.signal);
      const first = opened[0]!.agreement;
      for (const { agreement } of opened) checkSame(first, agreement);
      const info = exportInfo(first.sizeBytes, first.transmissionFlags, first.blocks, [
        ...first.contexts.keys(),
      ]);
      return new NbdClient(
        info,
        opened.map((one) => one.connection),
        first.contexts,
      );
    } catch (error) {
      await Promise.all(opened.map((one) => one.connection.close()));
      throw o.signal?.aborted ? cancelled(o.signal) : error;
    }
  }

  /** Sockets in use: what was asked for, where the server allows it. */
  get connectionCount(): number {
    return this.#connections.length;
  }

  /**
   * `length` bytes from `offset` on, in a new buffer; all of them or a failure. An aborted signal rejects with
   * CANCELLED at once.
   */
  async read(offset: number, length: number, o: { signal?: AbortSignal } = {}): Promise<Buffer> {
    this.#check('read', offset, length);
    throwIfAborted(o.signal);
    const target = Buffer.allocUnsafeSlow(length);
    await this.#readPieces(target, offset, o.signal);
    return target;
  }

  /**
   * Fills `target` with `target.length` bytes from `offset` on. The memory belongs to the client until the
   * promise settles; after a failure its content is undefined.
   */
  async readInto(target: Uint8Array, offset: number): Promise<void> {
    this.#check('read', offset, target.length);
    await this.#readPieces(target, offset, undefined);
  }

  /**
   * Writes `data`, which must not change until the promise settles. With `fua` the bytes are on stable storage
   * on return; where the server has no such flag, a flush of the export takes its place.
   */
  async write(offset: number, data: Uint8Array, o: { fua?: boolean } = {}): Promise<void> {
    this.#checkWrite('write', offset, data.length);
    const { flags, flushAfter } = this.#durability(o.fua ?? false);
    await this.#pieces(offset, data.length, this.info.maximumPayloadBytes, undefined, (at, length) => ({
      command: COMMAND.WRITE,
      flags,
      offset: at,
      length,
      payload: data.subarray(at - offset, at - offset + length),
    }));
    if (flushAfter) await this.flush();
  }

  /**
   * Makes the range read as zeroes. `mayTrim` allows the server to give the space back; without it the space
   * stays allocated where the server knows the difference. `fast` refuses (NBD_UNSUPPORTED, or
   * NBD_REQUEST_FAILED with ENOTSUP) rather than be as slow as writing. A server without the command gets zeroes
   * as data.
   */
  async writeZeroes(
    offset: number,
    length: number,
    o: { fua?: boolean; mayTrim?: boolean; fast?: boolean } = {},
  ): Promise<void> {
    this.#checkWrite('write-zeroes', offset, length);
    if (o.fast && !(this.info.canZero && this.info.canFastZero)) throw unsupported('fast zeroes');
    const durability = this.#durability(o.fua ?? false);
    if (this.info.canZero) {
      const flags =
        durability.flags | (o.mayTrim ? 0 : COMMAND_FLAG.NO_HOLE) | (o.fast ? COMMAND_FLAG.FAST_ZERO : 0);
      const command = COMMAND.WRITE_ZEROES;
      await this.#pieces(offset, length, EFFECT_BYTES_MAX, undefined, (at, count) => ({
        command,
        flags,
        offset: at,
        length: count,
      }));
    } else {
      const zeroes = Buffer.alloc(Math.min(ZERO_BYTES, length, this.info.maximumPayloadBytes));
      await this.#pieces(offset, length, zeroes.length, undefined, (at, count) => ({
        command: COMMAND.WRITE,
        flags: durability.flags,
        offset: at,
        length: count,
        payload: zeroes.subarray(0, count),
      }));
    }
    if (durability.flushAfter) await this.flush();
  }

  /** Tells the server that the range is no longer needed; what it reads as afterwards is undefined. */
  async trim(offset: number, length: number): Promise<void> {
    this.#checkWrite('trim', offset, length);
    if (!this.info.canTrim) throw unsupported('trim');
    await this.#pieces(offset, length, EFFECT_BYTES_MAX, undefined, (at, count) => ({
      command: COMMAND.TRIM,
      flags: 0,
      offset: at,
      length: count,
    }));
  }

  /**
   * On return everything whose write was confirmed before the call is on stable storage, over all connections.
   * A server that cannot promise it is NBD_UNSUPPORTED. A failed flush must not be repeated: what was written
   * since the last good one is to be taken for lost.
   */
  async flush(): Promise<void> {
    if (!this.info.canFlush) throw unsupported('flush');
    await this.#do({ command: COMMAND.FLUSH, flags: 0, offset: 0, length: 0 });
  }

  /**
   * The status of `[offset, offset + length)` in one context: consecutive extents that cover exactly this range,
   * neighbours with different flags. Throws NBD_CONTEXT_MISSING if the context was not granted.
   */
  async blockStatus(context: string, offset: number, length: number): Promise<NbdBlockExtent[]> {
    const [extents] = await this.blockStatuses([context], offset, length);
    return extents!;
  }

  /** The same for several contexts with the requests of one; a list for each context, in their order. */
  async blockStatuses(
    contexts: readonly string[],
    offset: number,
    length: number,
  ): Promise<NbdBlockExtent[][]> {
    const ids = contexts.map((context) => this.#contextId(context));
    this.#check('block-status', offset, length);
    const results = contexts.map((): NbdBlockExtent[] => []);
    const end = offset + length;
    for (let at = offset; at < end; ) {
      const request = new NbdRequest({
        command: COMMAND.BLOCK_STATUS,
        flags: 0,
        offset: at,
        length: Math.min(STATUS_BYTES_MAX, end - at),
        contextIds: [...this.#contextIds.values()],
      });
      await this.#submit(request, undefined);
      const lists = ids.map((id) => request.statuses.get(id)!);
      // A server may describe less than was asked for, and differently much for each context.
      const known = Math.min(...lists.map((list) => list.at(-1)!.offset + list.at(-1)!.length));
      for (const [i, list] of lists.entries()) appendUpTo(results[i]!, list, known);
      at = known;
    }
    return results;
  }

  /**
   * Waits for what is under way, says good-bye and closes the sockets. Never throws; may be called again.
   * Nothing is flushed by it.
   */
  async close(): Promise<void> {
    await Promise.all(this.#connections.map((connection) => connection.close()));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #readPieces(target: Uint8Array, offset: number, signal: AbortSignal | undefined): Promise<void> {
    return this.#pieces(offset, target.length, this.info.maximumPayloadBytes, signal, (at, length) => ({
      command: COMMAND.READ,
      flags: 0,
      offset: at,
      length,
      target: target.subarray(at - offset, at - offset + length),
    }));
  }

  /**
   * One request for each piece, all at once. Waits for every piece also when one fails, because the others
   * still use the caller's memory; then throws the first failure in the order of offsets.
   */
  async #pieces(
    offset: number,
    length: number,
    pieceBytes: number,
    signal: AbortSignal | undefined,
    partsOf: (offset: number, length: number) => RequestParts,
  ): Promise<void> {
    if (length <= pieceBytes) return this.#do(partsOf(offset, length), signal);
    const pieces: Promise<void>[] = [];
    for (let at = offset; at < offset + length; at += pieceBytes) {
      pieces.push(this.#do(partsOf(at, Math.min(pieceBytes, offset + length - at)), signal));
    }
    for (const outcome of await Promise.allSettled(pieces)) {
      if (outcome.status === 'rejected') throw outcome.reason;
    }
  }

  async #do(parts: RequestParts, signal?: AbortSignal): Promise<void> {
    if (parts.length === 0 && parts.command !== COMMAND.FLUSH) return;
    await this.#submit(new NbdRequest(parts), signal);
  }

  async #submit(request: NbdRequest, signal: AbortSignal | undefined): Promise<void> {
    const connection = leastBusy(this.#connections);
    if (signal === undefined) {
      connection.submit(request);
      return request.settled;
    }
    const onAbort = (): void => connection.withdraw(request, cancelled(signal));
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      connection.submit(request);
      await request.settled;
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  #contextId(context: string): number {
    const id = this.#contextIds.get(context);
    if (id !== undefined) return id;
    throw nbdFailure('NBD_CONTEXT_MISSING', `the export has no metadata context «${context}»`, {
      context: { metadataContext: context },
    });
  }

  #durability(fua: boolean): { flags: number; flushAfter: boolean } {
    if (!fua) return { flags: 0, flushAfter: false };
    if (this.info.canFua) return { flags: COMMAND_FLAG.FUA, flushAfter: false };
    if (!this.info.canFlush) throw unsupported('durable writes (neither FUA nor flush)');
    return { flags: 0, flushAfter: true };
  }

  #checkWrite(what: string, offset: number, length: number): void {
    if (this.info.readOnly) throw nbdFailure('NBD_READ_ONLY', `${what} on a read-only export`);
    this.#check(what, offset, length);
  }

  #check(what: string, offset: number, length: number): void {
    const unit = this.info.minimumBlockBytes;
    const inside =
      Number.isSafeInteger(offset) &&
      Number.isSafeInteger(length) &&
      offset >= 0 &&
      length >= 0 &&
      offset + length <= this.info.sizeBytes;
    if (inside && offset % unit === 0 && length % unit === 0) return;
    throw nbdFailure(
      'NBD_REQUEST_INVALID',
      `${what} at ${offset}+${length} of an export with ${this.info.sizeBytes} bytes in blocks of ${unit}`,
      { context: { offset, length, sizeBytes: this.info.sizeBytes, minimumBlockBytes: unit } },
    );
  }
}

function checkConnect(o: NbdConnectOptions, contexts: readonly string[], connections: number): void {
  checkName('the export name', o.exportName);
  for (const context of contexts) checkName('a metadata context', context);
  if (contexts.length > CONTEXTS_MAX) {
    throw nbdFailure('NBD_REQUEST_INVALID', `more than ${CONTEXTS_MAX} metadata contexts`, {
      hint: 'Ask for fewer contexts on one connection.',
    });
  }
  if (!Number.isInteger(connections) || connections < 1 || connections > CONNECTIONS_MAX) {
    throw nbdFailure(
      'NBD_REQUEST_INVALID',
      `${connections} connections; 1 to ${CONNECTIONS_MAX} are possible`,
      {
        hint: `Ask for 1 to ${CONNECTIONS_MAX} connections.`,
      },
    );
  }
}

/** Two connections that were promised different things cannot share requests. */
function checkSame(first: Agreement, other: Agreement): void {
  const text = (one: Agreement): string =>
    JSON.stringify([one.sizeBytes, one.transmissionFlags, one.blocks, one.structured, [...one.contexts]]);
  if (text(first) === text(other)) return;
  throw nbdFailure('NBD_EXPORT_CHANGED', 'the export is not the same on every connection');
}

/** As soon as one connection is lost the others end for the same reason: half a client helps nobody. */
async function endOfAll(connections: readonly NbdConnection[]): Promise<Failure | undefined> {
  const first = await Promise.race(connections.map((connection) => connection.closed));
  for (const connection of connections) if (first !== undefined) connection.abandon(first);
  await Promise.all(connections.map((connection) => connection.close()));
  return first;
}

function leastBusy(connections: readonly NbdConnection[]): NbdConnection {
  if (connections.length === 1) return connections[0]!;
  return connections.reduce((best, one) => (one.load < best.load ? one : best));
}

function unsupported(feature: string): Failure {
  return nbdFailure('NBD_UNSUPPORTED', `the export does not support ${feature}`, { context: { feature } });
}

/** Appends extents up to `end`, uniting neighbours of equal status. */
function appendUpTo(result: NbdBlockExtent[], list: readonly NbdBlockExtent[], end: number): void {
  for (const extent of list) {
    const length = Math.min(extent.length, end - extent.offset);
    if (length <= 0) return;
    const last = result.at(-1);
    if (last?.flags === extent.flags) result[result.length - 1] = { ...last, length: last.length + length };
    else result.push({ offset: extent.offset, length, flags: extent.flags });
  }
}
