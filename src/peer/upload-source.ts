import type { IncomingMessage } from 'node:http';
import type { Clock } from '../lib/clock.ts';
import { peerFailure } from './errors.ts';
import type { Peer } from './peer.ts';
import { Stop } from './stop.ts';
import { Watchdog } from './watchdog.ts';

/**
 * The body of an upload as its handler sees it. Nothing is read ahead of the handler but the buffers of the
 * socket. Throws PEER_STALLED when the handler has waited `stallTimeoutMs` for a byte, PEER_CONNECTION_LOST when
 * the body ends early, and the reason of `signal`. Leaving it early does not end the connection.
 */
export async function* uploadSource(
  message: IncomingMessage,
  o: { peer: Peer; clock: Clock; stallTimeoutMs: number; signal: AbortSignal },
): AsyncGenerator<Buffer, void, undefined> {
  const stop = new Stop();
  const onAbort = (): void => stop.now(o.signal.reason as Error);
  if (o.signal.aborted) onAbort();
  o.signal.addEventListener('abort', onAbort, { once: true });
  const watchdog = new Watchdog(o.clock, o.stallTimeoutMs, () =>
    stop.now(
      peerFailure('PEER_STALLED', `no byte came from ${o.peer.name} in ${o.stallTimeoutMs} ms`, {
        context: { peer: o.peer.name, stallTimeoutMs: o.stallTimeoutMs },
      }),
    ),
  );
  const chunks = message.iterator({ destroyOnReturn: false });
  try {
    for (;;) {
      watchdog.start();
      const next = await stop.or(nextChunk(chunks, o.peer));
      watchdog.stop();
      if (next.done) break;
      yield next.value;
    }
  } finally {
    watchdog.stop();
    o.signal.removeEventListener('abort', onAbort);
  }
}

async function nextChunk(
  chunks: NodeJS.AsyncIterator<Buffer>,
  peer: Peer,
): Promise<IteratorResult<Buffer, undefined>> {
  try {
    return await chunks.next();
  } catch (error) {
    throw peerFailure('PEER_CONNECTION_LOST', `the connection with ${peer.name} ended inside an upload`, {
      context: { peer: peer.name },
      cause: error,
    });
  }
}
