import type { IncomingMessage } from 'node:http';
import type { Json } from '../lib/canonical-json.ts';
import { peerFailure } from './errors.ts';

/**
 * The whole body as JSON; an empty body is null. PEER_BODY_TOO_LARGE as soon as it exceeds `limitBytes`,
 * PEER_PROTOCOL_INVALID for what is not JSON, PEER_CONNECTION_LOST if it ends early. The message is not
 * destroyed by a refusal, so that it can still be answered.
 */
export async function readJson(message: IncomingMessage, limitBytes: number, from: string): Promise<Json> {
  const chunks: Buffer[] = [];
  let size = 0;
  try {
    for await (const chunk of message.iterator({ destroyOnReturn: false })) {
      size += (chunk as Buffer).length;
      if (size > limitBytes) break;
      chunks.push(chunk as Buffer);
    }
  } catch (error) {
    throw peerFailure('PEER_CONNECTION_LOST', `the connection with ${from} ended inside a message`, {
      context: { peer: from },
      cause: error,
    });
  }
  if (size > limitBytes) {
    throw peerFailure('PEER_BODY_TOO_LARGE', `a message of ${from} exceeds ${limitBytes} bytes`, {
      context: { peer: from, limitBytes },
    });
  }
  if (size === 0) return null;
  try {
    return JSON.parse(Buffer.concat(chunks).toString('utf8')) as Json;
  } catch (error) {
    throw peerFailure('PEER_PROTOCOL_INVALID', `a message of ${from} is not JSON`, {
      context: { peer: from },
      cause: error,
    });
  }
}
