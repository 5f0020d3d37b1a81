import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { type CleanUp, temporaryDirectory } from './temporary.ts';

/** A Unix socket server of a test: `serve` gets each client. It and its clients end with the test. */
export async function scriptedServer(t: CleanUp, serve: (socket: Socket) => void): Promise<{ path: string }> {
  const path = join(await temporaryDirectory(t), 'socket');
  const sockets = new Set<Socket>();
  const server: Server = createServer((socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    // A client that leaves in the middle is part of what is tested.
    socket.on('error', () => socket.destroy());
    serve(socket);
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  t.after(async () => {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  });
  return { path };
}
