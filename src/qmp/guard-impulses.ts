import type { Readable } from 'node:stream';
import type { Clock } from '../lib/clock.ts';
import { decodeOrder } from './freeze-messages.ts';
import { LineReader } from './line-reader.ts';

/** What makes a guard move on: an order of its parent, the limit, the end of the parent, a signal. */
export type Impulse<Order extends string> = Order | 'limit' | 'parent-gone' | 'signal';

/** The impulses of a guard process, in the order in which they came. */
export interface Impulses<Order extends string> {
  next(): Promise<Impulse<Order>>;
  /** Pushes `limit` after so long; the returned function takes that back. */
  limitAfter(limitMs: number): () => void;
}

/** Orders, the end of the parent, and signals as one queue. */
export function impulsesOf<Order extends string>(o: {
  readonly orders: Readable;
  readonly terminated: AbortSignal;
  readonly clock: Clock;
}): Impulses<Order> {
  const queue: Impulse<Order>[] = [];
  let wake: (() => void) | undefined;
  const push = (impulse: Impulse<Order>) => {
    queue.push(impulse);
    wake?.();
  };
  const gone = () => push('parent-gone');
  const reader = new LineReader(
    { lineBytesMax: 4096 },
    {
      // What is no order cannot come from our parent: better to let go than to guess.
      onLine: (line) => push((decodeOrder(line)?.order as Order | undefined) ?? 'parent-gone'),
      onTooLong: gone,
    },
  );
  o.orders.on('data', (chunk: Buffer) => reader.push(chunk));
  o.orders.on('end', gone);
  o.orders.on('error', gone);
  if (o.terminated.aborted) push('signal');
  else o.terminated.addEventListener('abort', () => push('signal'), { once: true });
  return {
    limitAfter: (limitMs) => o.clock.after(limitMs, () => push('limit')),
    async next() {
      while (queue.length === 0) await new Promise<void>((resolve) => (wake = resolve));
      return queue.shift()!;
    },
  };
}
