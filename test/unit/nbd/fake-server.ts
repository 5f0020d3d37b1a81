import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { systemClock } from '../../../src/lib/clock.ts';
import { NbdClient, type NbdConnectOptions } from '../../../src/nbd/index.ts';
import { type CleanUp, temporaryDirectory } from '../../support/temporary.ts';

/** A request as it came over the wire. */
export interface SeenRequest {
  readonly flags: number;
  readonly command: number;
  readonly cookie: bigint;
  readonly offset: number;
  readonly length: number;
  readonly payload: Buffer;
}

export interface SeenOption {
  readonly option: number;
  readonly data: Buffer;
}

export interface FakePeer {
  readonly socket: Socket;
  take(count: number): Promise<Buffer>;
  nextRequest(): Promise<SeenRequest>;
  nextOption(): Promise<SeenOption>;
}

export const OPTION_REPLY_MAGIC = 0x0003e889045565a9n;
export const FLAGS_ALL = 0b1001_0110_1101;

/** Numbers of given widths in bits, big-endian; buffers and texts as they are. */
export function bytes(
  ...parts: readonly (Buffer | string | readonly [8 | 16 | 32 | 64, number | bigint])[]
): Buffer {
  return Buffer.concat(
    parts.map((part) => {
      if (typeof part === 'string') return Buffer.from(part);
      if (Buffer.isBuffer(part)) return part;
      const [bits, value] = part as readonly [number, number | bigint];
      return Buffer.from(
        BigInt.asUintN(bits, BigInt(value))
          .toString(16)
          .padStart(bits / 4, '0'),
        'hex',
      );
    }),
  );
}

export function greeting(flags = 3): Buffer {
  return bytes('NBDMAGIC', 'IHAVEOPT', [16, flags]);
}

export function optionReply(option: number, type: number, data: Buffer | string = ''): Buffer {
  const body = bytes(data);
  return bytes([64, OPTION_REPLY_MAGIC], [32, option], [32, type], [32, body.length], body);
}

export function simpleReply(request: SeenRequest, errno = 0, data: Buffer | string = ''): Buffer {
  return bytes([32, 0x67446698], [32, errno], [64, request.cookie], data);
}

export function chunk(
  request: { cookie: bigint },
  type: number,
  body: Buffer | string = '',
  done = false,
): Buffer {
  const payload = bytes(body);
  return bytes(
    [32, 0x668e33ef],
    [16, done ? 1 : 0],
    [16, type],
    [64, request.cookie],
    [32, payload.length],
    payload,
  );
}

export const dataChunk = (request: SeenRequest, offset: number, data: Buffer, done = false): Buffer =>
  chunk(request, 1, bytes([64, offset], data), done);

export const holeChunk = (request: SeenRequest, offset: number, length: number, done = false): Buffer =>
  chunk(request, 2, bytes([64, offset], [32, length]), done);

export const errorChunk = (request: SeenRequest, errno: number, text = '', done = false): Buffer =>
  chunk(request, 0x8001, bytes([32, errno], [16, Buffer.byteLength(text)], text), done);

export const statusChunk = (
  request: SeenRequest,
  id: number,
  extents: readonly (readonly [length: number, flags: number])[],
  done = false,
): Buffer =>
  chunk(
    request,
    5,
    bytes([32, id], ...extents.map(([length, flags]) => bytes([32, length], [32, flags]))),
    done,
  );

/** A server that does what the script says; the script gets each connection. */
export async function fakeServer(
  t: CleanUp,
  script: (peer: FakePeer) => Promise<void>,
): Promise<{ kind: 'unix'; path: string }> {
  const path = join(await temporaryDirectory(t), 's');
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    socket.on('error', () => undefined);
    script(peerOf(socket)).catch((error: unknown) => {
      if (!(error instanceof GoneError)) throw error;
    });
  });
  t.after(async () => {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  return { kind: 'unix', path };
}

class GoneError extends Error {}

function peerOf(socket: Socket): FakePeer {
  let unread: Buffer = Buffer.alloc(0);
  let wake: () => void = () => undefined;
  let gone = false;
  socket.on('data', (data) => {
    unread = Buffer.concat([unread, data as Buffer]);
    wake();
  });
  socket.on('close', () => {
    gone = true;
    wake();
  });
  const take = async (count: number): Promise<Buffer> => {
    while (unread.length < count) {
      if (gone) throw new GoneError();
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
    const taken = unread.subarray(0, count);
    unread = unread.subarray(count);
    return taken;
  };
  return {
    socket,
    take,
    async nextRequest() {
      const head = await take(28);
      const command = head.readUInt16BE(6);
      const length = head.readUInt32BE(24);
      return {
        flags: head.readUInt16BE(4),
        command,
        cookie: head.readBigUInt64BE(8),
        offset: Number(head.readBigUInt64BE(16)),
        length,
        payload: command === 1 ? await take(length) : Buffer.alloc(0),
      };
    },
    async nextOption() {
      const head = await take(16);
      return { option: head.readUInt32BE(8), data: await take(head.readUInt32BE(12)) };
    },
  };
}

export interface HandshakeOptions {
  readonly sizeBytes?: number;
  readonly flags?: number;
  readonly structured?: boolean;
  readonly contexts?: Readonly<Record<string, number>>;
  readonly blocks?: readonly [number, number, number];
}

/** A handshake as a right server does it. */
export async function shake(peer: FakePeer, o: HandshakeOptions = {}): Promise<void> {
  peer.socket.write(greeting());
  await peer.take(4);
  for (;;) {
    const { option } = await peer.nextOption();
    if (option === 8) peer.socket.write(optionReply(8, o.structured === false ? 0x80000001 : 1));
    if (option === 10) {
      for (const [name, id] of Object.entries(o.contexts ?? {})) {
        peer.socket.write(optionReply(10, 4, bytes([32, id], name)));
      }
      peer.socket.write(optionReply(10, 1));
    }
    if (option === 7) {
      const info = bytes([16, 0], [64, o.sizeBytes ?? 1024 * 1024], [16, o.flags ?? FLAGS_ALL]);
      peer.socket.write(optionReply(7, 3, info));
      if (o.blocks) {
        const [minimum, preferred, maximum] = o.blocks;
        peer.socket.write(optionReply(7, 3, bytes([16, 3], [32, minimum], [32, preferred], [32, maximum])));
      }
      peer.socket.write(optionReply(7, 1));
      return;
    }
  }
}

/** A client of a server that shakes hands rightly and then follows the script. */
export async function connected(
  t: CleanUp,
  script: (peer: FakePeer) => Promise<void>,
  o: HandshakeOptions & { client?: Partial<NbdConnectOptions> } = {},
): Promise<NbdClient> {
  const address = await fakeServer(t, async (peer) => {
    await shake(peer, o);
    await script(peer);
  });
  const client = await NbdClient.connect({
    address,
    exportName: '',
    contexts: Object.keys(o.contexts ?? {}),
    clock: systemClock,
    ...o.client,
  });
  t.after(() => client.close());
  return client;
}
