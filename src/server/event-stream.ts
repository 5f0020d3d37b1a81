import type { ServerResponse } from 'node:http';
import { VERSION_HEADER } from '../api/index.ts';
import type { Site } from '../control/index.ts';
import type { Clock } from '../lib/clock.ts';
import { WARMSITE_VERSION } from '../lib/records.ts';

/** A listener that takes less than it is sent is let go at this backlog; it connects again and asks for the state. */
const BACKLOG_BYTES_MAX = 1024 * 1024;
/** A comment this often tells proxies and clients that the stream lives. */
const COMMENT_EVERY_MS = 15_000;

/**
 * Server-sent events (WHATWG HTML, «Server-sent events»): everything that changes from now on, until the listener goes
 * away. Returns the function that ends the stream.
 */
export function streamEvents(site: Site, response: ServerResponse, clock: Clock): () => void {
  response.writeHead(200, {
    'content-type': 'text/event-stream',
    'cache-control': 'no-store',
    [VERSION_HEADER]: WARMSITE_VERSION,
  });
  const send = (text: string): void => {
    if (response.writableLength > BACKLOG_BYTES_MAX) response.destroy();
    else response.write(text);
  };
  send(': this site tells what changes\n\n');
  let cancelComment: () => void = () => undefined;
  const comment = (): void => {
    send(':\n\n');
    cancelComment = clock.after(COMMENT_EVERY_MS, comment);
  };
  cancelComment = clock.after(COMMENT_EVERY_MS, comment);
  const stopListening = site.events.listen((event) => {
    send(`event: ${event.event}\ndata: ${JSON.stringify(event)}\n\n`);
  });
  response.once('close', () => {
    stopListening();
    cancelComment();
  });
  return () => response.end();
}
