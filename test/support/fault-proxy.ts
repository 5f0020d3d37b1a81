import { once } from 'node:events';
import {
  type AddressInfo,
  connect,
  createServer,
  type NetConnectOpts,
  type Server,
  type Socket,
} from 'node:net';
import { type Clock, sleep, systemClock } from '../../src/lib/clock.ts';
import type { CleanUp } from './temporary.ts';

/** What is done to the bytes of one direction. Offsets count from the start of each connection. */
export interface DirectionFaults {
  /** Resets both ends when this many bytes have passed. */
  cutAfterBytes?: number;
  /** Takes no more bytes after this many have passed, and keeps the connection open. */
  stallAfterBytes?: number;
  /** Turns over the lowest bit of the byte at this offset. */
  flipByteAt?: number;
  /** Holds each piece back for this long; order is kept. */
  delayMs?: number;
}

/**
 * A TCP proxy that fails as told. Faults are read for each piece of data, so that a test may set them at any time;
 * they apply to all connections. Two `FaultProxy` in a row give two faults at once.
 */
export class FaultProxy {
  /** From the one who connected to the target. */
  readonly up: DirectionFaults = {};
  /** From the target back. */
  readonly down: DirectionFaults = {};
  /** Connections accepted so far. */
  connections = 0;
  /** Bytes passed on upwards so far, over all connections. */
  upBytes = 0;
  /** Called when a connection has been cut or garbled; may set what comes next. */
  onFault: () => void = () => undefined;

  readonly #server: Server;
  readonly #target: NetConnectOpts;
  readonly #clock: Clock;
  readonly #pairs = new Set<readonly [Socket, Socket]>();
  #stalled = false;
  #resumed: (() => void)[] = [];

  private constructor(target: NetConnectOpts, clock: Clock) {
    this.#target = target;
    this.#clock = clock;
    this.#server = createServer({ allowHalfOpen: true }, (socket) => this.#accept(socket));
  }

  /** Listens on a free port of 127.0.0.1 until the test ends. */
  static async start(t: CleanUp, target: NetConnectOpts, clock: Clock = systemClock): Promise<FaultProxy> {
    const proxy = new FaultProxy(target, clock);
    t.after(() => proxy.close());
    proxy.#server.listen(0, '127.0.0.1');
    await once(proxy.#server, 'listening');
    return proxy;
  }

  get address(): { readonly host: string; readonly port: number } {
    return { host: '127.0.0.1', port: (this.#server.address() as AddressInfo).port };
  }

  /** Resets every connection, as a router that restarts does. */
  cutAll(): void {
    for (const pair of this.#pairs) reset(pair);
  }

  /** Passes nothing on, in both directions and for new connections too, until `resume`. */
  stall(): void {
    this.#stalled = true;
  }

  resume(): void {
    this.#stalled = false;
    for (const go of this.#resumed.splice(0)) go();
  }

  async close(): Promise<void> {
    this.cutAll();
    this.resume();
    if (this.#server.listening) await new Promise((resolve) => this.#server.close(resolve));
  }

  #accept(near: Socket): void {
    this.connections++;
    const far = connect({ ...this.#target, allowHalfOpen: true } as NetConnectOpts);
    const pair = [near, far] as const;
    this.#pairs.add(pair);
    for (const socket of pair) {
      socket.on('error', () => reset(pair));
      socket.once('close', () => {
        if (near.destroyed && far.destroyed) this.#pairs.delete(pair);
      });
    }
    this.#copy(near, far, this.up, pair).catch(() => reset(pair));
    this.#copy(far, near, this.down, pair).catch(() => reset(pair));
  }

  async #copy(
    from: Socket,
    to: Socket,
    faults: DirectionFaults,
    pair: readonly [Socket, Socket],
  ): Promise<void> {
    let passed = 0;
    for await (const chunk of from) {
      let piece = chunk as Buffer;
      if (faults.delayMs) await sleep(this.#clock, faults.delayMs);
      const flipAt = (faults.flipByteAt ?? -1) - passed;
      if (flipAt >= 0 && flipAt < piece.length) {
        piece = Buffer.from(piece);
        piece[flipAt] = piece[flipAt]! ^ 1;
        this.onFault();
      }
      const cutAt = (faults.cutAfterBytes ?? Number.POSITIVE_INFINITY) - passed;
      const stallAt = (faults.stallAfterBytes ?? Number.POSITIVE_INFINITY) - passed;
      const allowed = Math.max(0, Math.min(piece.length, cutAt, stallAt));
      while (this.#stalled) await new Promise<void>((resolve) => this.#resumed.push(resolve));
      if (allowed > 0 && !to.write(piece.subarray(0, allowed))) await once(to, 'drain');
      passed += allowed;
      if (faults === this.up) this.upBytes += allowed;
      if (cutAt <= piece.length) {
        reset(pair);
        this.onFault();
        return;
      }
      // Kept open and never read again, until somebody closes it.
      if (stallAt <= piece.length) return void (await once(from, 'close'));
    }
    to.end();
  }
}

function reset(pair: readonly [Socket, Socket]): void {
  for (const socket of pair) {
    if (!socket.destroyed) socket.resetAndDestroy();
  }
}
