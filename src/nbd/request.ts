import type { Failure } from '../lib/errors.ts';
import { Coverage } from './coverage.ts';
import { nbdFailure } from './errors.ts';
import { COMMAND, type Command, commandName, errnoName } from './wire.ts';

/** A run of bytes with the same status in one metadata context. */
export interface NbdBlockExtent {
  readonly offset: number;
  readonly length: number;
  /** Meaning by context: bits for `base:allocation`, a number for `qemu:allocation-depth`. Unsigned 32 bits. */
  readonly flags: number;
}

export interface RequestParts {
  readonly command: Command;
  readonly flags: number;
  readonly offset: number;
  readonly length: number;
  /** Read: where the bytes go; as long as `length`. */
  readonly target?: Uint8Array;
  /** Write: the bytes to send; not copied, so they must not change before the reply. */
  readonly payload?: Uint8Array;
  /** Block status: the contexts that were agreed on. The reply must tell of each once, and of no other. */
  readonly contextIds?: readonly number[];
}

/**
 * One request on its way, and what has come of its reply so far. The methods that take parts of a reply throw
 * NBD_PROTOCOL when the part cannot belong to this request: the connection is then beyond trust.
 */
export class NbdRequest {
  readonly command: Command;
  readonly flags: number;
  readonly offset: number;
  readonly length: number;
  readonly target: Uint8Array | undefined;
  readonly payload: Uint8Array | undefined;
  /** Settled by the reply or by the end of the connection. */
  readonly settled: Promise<void>;
  /** Block status replies by the number of their context. */
  readonly statuses = new Map<number, NbdBlockExtent[]>();
  readonly #resolve: () => void;
  readonly #reject: (failure: Error) => void;
  readonly #contextIds: readonly number[];
  readonly #coverage = new Coverage();
  #failure: Failure | undefined;

  constructor(parts: RequestParts) {
    this.command = parts.command;
    this.flags = parts.flags;
    this.offset = parts.offset;
    this.length = parts.length;
    this.target = parts.target;
    this.payload = parts.payload;
    this.#contextIds = parts.contextIds ?? [];
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.settled = promise;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  /** Bytes that this request puts on the wire in either direction. */
  get payloadBytes(): number {
    return this.target?.length ?? this.payload?.length ?? 0;
  }

  /** Marks `[offset, offset + length)` of the export as received; its position inside `target`. */
  takeContent(offset: number, length: number): number {
    if (this.command !== COMMAND.READ) throw this.#broken('content chunk');
    const at = offset - this.offset;
    if (length === 0) throw this.#broken('empty content chunk');
    if (at < 0 || at + length > this.length) {
      throw this.#broken(`content chunk at ${offset}+${length}, outside the request,`);
    }
    const outcome = this.#coverage.add(at, at + length);
    if (outcome === 'overlap') throw this.#broken(`overlapping content chunk at ${offset}+${length}`);
    if (outcome === 'scattered') throw this.#broken('reply scattered into too many chunks');
    return at;
  }

  takeHole(offset: number, length: number): void {
    const at = this.takeContent(offset, length);
    this.target?.fill(0, at, at + length);
  }

  /** The descriptors of one context: `count` pairs of length and flags from `at` on. */
  takeStatus(contextId: number, source: Buffer, at: number, count: number): void {
    if (this.command !== COMMAND.BLOCK_STATUS) throw this.#broken('block status chunk');
    if (!this.#contextIds.includes(contextId))
      throw this.#broken(`block status of unknown context ${contextId}`);
    if (this.statuses.has(contextId)) throw this.#broken('second block status for one context');
    const extents: NbdBlockExtent[] = [];
    const end = this.offset + this.length;
    let offset = this.offset;
    for (let i = 0; i < count; i++) {
      const described = source.readUInt32BE(at + 8 * i);
      if (described === 0) throw this.#broken('block status with an empty extent');
      if (offset >= end) throw this.#broken('block status beyond the request');
      // The last extent may reach beyond the request, because the server knows more (doc/proto.md): cut it.
      const length = Math.min(described, end - offset);
      extents.push({ offset, length, flags: source.readUInt32BE(at + 8 * i + 4) });
      offset += described;
    }
    this.statuses.set(contextId, extents);
  }

  /** An error chunk or an erroneous simple reply: the whole request has failed, whatever else comes. */
  takeError(errno: number, text: string): void {
    if (errno === 0) throw this.#broken('error chunk without an error');
    const name = errnoName(errno);
    this.#failure ??= nbdFailure(
      'NBD_REQUEST_FAILED',
      `${this.describe()} failed with ${name}${text === '' ? '' : `: ${text}`}`,
      {
        context: {
          errno: name,
          command: commandName(this.command),
          offset: this.offset,
          length: this.length,
        },
      },
    );
  }

  takeErrorOffset(offset: number): void {
    if (offset < this.offset || offset >= this.offset + Math.max(1, this.length)) {
      throw this.#broken(`error at offset ${offset}, outside the request,`);
    }
  }

  /** The reply is complete. */
  finish(): void {
    if (this.#failure !== undefined) {
      this.#reject(this.#failure);
      return;
    }
    if (this.command === COMMAND.READ && this.#coverage.totalBytes !== this.length) {
      throw this.#broken(`end of reply after ${this.#coverage.totalBytes} of ${this.length} bytes`);
    }
    if (this.statuses.size !== this.#contextIds.length) {
      throw this.#broken(
        `block status of ${this.statuses.size} instead of ${this.#contextIds.length} contexts`,
      );
    }
    this.#resolve();
  }

  /** The connection ended or the caller gave up; without effect after the reply. */
  reject(failure: Error): void {
    this.#reject(failure);
  }

  describe(): string {
    return `${commandName(this.command)} at ${this.offset}+${this.length}`;
  }

  #broken(what: string): Failure {
    return nbdFailure('NBD_PROTOCOL', `the server sent ${what} in answer to ${this.describe()}`);
  }
}
