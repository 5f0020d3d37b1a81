import type { ClientRequest } from 'node:http';
import { Agent } from 'node:https';
import type { Json } from '../lib/canonical-json.ts';
import { type Clock, cancelled, throwIfAborted } from '../lib/clock.ts';
import { peerFailure } from './errors.ts';
import { agentOptions, headOf, openRequest, readAnswer, type Target } from './exchange.ts';
import type { Leaf } from './leaf-keeper.ts';
import { Outbox } from './outbox.ts';
import { HEADER, PATH } from './protocol.ts';
import { Stop } from './stop.ts';
import { Watchdog } from './watchdog.ts';

/** What may be sent: one buffer, or several. Their memory is the source's again when the next chunk is asked for. */
export type UploadChunk = Uint8Array | readonly Uint8Array[];

export async function sendUpload(
  target: Target,
  session: string,
  chunks: AsyncIterable<UploadChunk>,
  o: { leaf: Leaf; clock: Clock; stallTimeoutMs: number; signal?: AbortSignal },
): Promise<Json> {
  throwIfAborted(o.signal);
  const agent = new Agent(agentOptions(1));
  const request = openRequest(target, {
    method: 'POST',
    path: PATH.upload + session,
    leaf: o.leaf,
    clock: o.clock,
    agent,
    headers: {
      'content-type': 'application/octet-stream',
      'transfer-encoding': 'chunked',
      [HEADER.heartbeat]: Math.ceil(o.stallTimeoutMs / 3),
    },
  });
  const stop = new Stop();
  const breakOff = (error: Error): void => {
    stop.now(error);
    request.destroy(error);
  };
  const watchdog = new Watchdog(o.clock, o.stallTimeoutMs, () =>
    breakOff(
      peerFailure(
        'PEER_STALLED',
        `${target.name} neither took a byte nor gave a sign in ${o.stallTimeoutMs} ms`,
        {
          context: { remote: target.name, stallTimeoutMs: o.stallTimeoutMs },
        },
      ),
    ),
  );
  const onAbort = (): void => breakOff(cancelled(o.signal!));
  o.signal?.addEventListener('abort', onAbort, { once: true });
  request.on('information', () => watchdog.fed());

  const answered = new Error('the peer has answered');
  const head = headOf(request, target);
  head.then(
    () => stop.now(answered),
    (error: Error) => stop.now(error),
  );
  try {
    watchdog.start();
    request.flushHeaders();
    try {
      await pump(request, chunks, stop, watchdog);
      request.end();
    } catch (error) {
      // An answer before the end of the body is the peer's word on it: no more is sent.
      if (error !== answered) throw error;
    }
    return await readAnswer(await head, target);
  } catch (error) {
    throw stop.reason && stop.reason !== answered ? stop.reason : error;
  } finally {
    watchdog.stop();
    o.signal?.removeEventListener('abort', onAbort);
    request.destroy();
    agent.destroy();
  }
}

/** Copies the source into the request, no faster than the socket takes it. Throws the reason of `stop`. */
async function pump(
  request: ClientRequest,
  chunks: AsyncIterable<UploadChunk>,
  stop: Stop,
  watchdog: Watchdog,
): Promise<void> {
  const outbox = new Outbox((bytes, taken) => {
    request.write(bytes, (error) => {
      // What could not be written ends the request, which ends the pump.
      if (error) return;
      watchdog.fed();
      taken();
    });
  });
  const source = chunks[Symbol.asyncIterator]();
  let reading = false;
  let ended = false;
  try {
    for (;;) {
      reading = true;
      const next = await stop.or(source.next());
      reading = false;
      ended = next.done === true;
      if (ended) break;
      for (const buffer of buffersOf(next.value)) {
        for (let at = 0; at < buffer.length; ) {
          const count = outbox.put(buffer.subarray(at));
          if (count === 0) await stop.or(outbox.taken());
          at += count;
        }
      }
      outbox.send();
    }
    while (!outbox.isEmpty) await stop.or(outbox.taken());
  } finally {
    if (!ended) await leave(source, reading);
  }
}

/** Tells a source that no more is wanted. One that is still busy is told, but not waited for: it may be stuck. */
async function leave(source: AsyncIterator<UploadChunk>, busy: boolean): Promise<void> {
  const left = Promise.resolve(source.return?.());
  // It ends in its own time; how, changes nothing for anybody here.
  if (busy) left.catch(() => undefined);
  else await left;
}

function buffersOf(chunk: UploadChunk): readonly Uint8Array[] {
  return chunk instanceof Uint8Array ? [chunk] : chunk;
}
