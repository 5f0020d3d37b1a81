import { mkdtemp, open, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Clock } from '../../lib/clock.ts';
import { messageOf, systemCodeOf } from '../../lib/errors.ts';
import { runCommand } from '../../lib/processes.ts';
import { contentExtents, depthExtents, NbdClient } from '../../nbd/index.ts';
import { hypervisorFailure } from '../errors.ts';
import type { ContentExtents, DiskImages, ImageFile, ImageReader } from '../images.ts';
import { chainFileName } from './chain-options.ts';

/** Two connections keep a reader busy while the other waits for the disk; more gain nothing on a unix socket. */
const CONNECTIONS = 2;

/**
 * Disk images through QEMU's own tools: `qemu-nbd` serves a chain on a unix socket in a directory of its own
 * and ends by itself when its last client has gone, so that nothing outlives a killed reader.
 */
export class QemuImages implements DiskImages {
  readonly #clock: Clock;

  constructor(o: { clock: Clock }) {
    this.#clock = o.clock;
  }

  async open(chain: readonly ImageFile[]): Promise<ImageReader> {
    const directory = await mkdtemp(join(tmpdir(), 'ws-nbd-'));
    const path = join(directory, 's');
    const pidFile = join(directory, 'pid');
    try {
      await runCommand('qemu-nbd', [
        '--fork',
        '--read-only',
        '--allocation-depth',
        `--shared=${CONNECTIONS}`,
        `--socket=${path}`,
        `--pid-file=${pidFile}`,
        '--cache=writeback',
        chainFileName(chain, { 'read-only': true }),
      ]);
    } catch (error) {
      await rm(directory, { recursive: true, force: true });
      throw unreadable(chain, error);
    }
    try {
      const client = await NbdClient.connect({
        address: { kind: 'unix', path },
        exportName: '',
        contexts: ['base:allocation', 'qemu:allocation-depth'],
        connections: CONNECTIONS,
        clock: this.#clock,
      });
      return new QemuImageReader(client, directory);
    } catch (error) {
      await endServer(pidFile);
      await rm(directory, { recursive: true, force: true });
      throw error;
    }
  }

  async commit(base: ImageFile, top: ImageFile): Promise<void> {
    try {
      // -d: do not empty the top afterwards; it stays a whole layer until its file is removed.
      await runCommand('qemu-img', [
        'commit',
        '-q',
        '-d',
        chainFileName([base, top], { 'read-only': false }),
      ]);
    } catch (error) {
      throw hypervisorFailure(
        'COMMIT_FAILED',
        `cannot commit ${top.path} into ${base.path}: ${messageOf(error)}`,
        {
          context: { base: base.path, top: top.path },
          cause: error,
        },
      );
    }
    await syncFile(base.path);
  }

  async reparent(image: ImageFile, backing: ImageFile): Promise<void> {
    // -u: only the header is written; nothing of the old or the new backing file is opened.
    await runCommand('qemu-img', [
      ...['rebase', '-u', '-f', image.format],
      ...['-F', backing.format, '-b', backing.path, image.path],
    ]);
    await syncFile(image.path);
  }
}

/** Makes everything that any process wrote to the file durable. A failure is final: see `FileSystem`. */
export async function syncFile(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** A server that nobody ever connected to has no last client to end it. */
async function endServer(pidFile: string): Promise<void> {
  const pid = Number.parseInt(await readFile(pidFile, 'utf8').catch(() => ''), 10);
  if (!(pid > 1)) return;
  try {
    process.kill(pid, 'SIGTERM');
  } catch (error) {
    if (systemCodeOf(error) !== 'ESRCH') throw error;
  }
}

function unreadable(chain: readonly ImageFile[], error: unknown) {
  const path = chain.at(-1)?.path ?? '';
  return hypervisorFailure('IMAGE_UNREADABLE', `cannot open ${path}: ${messageOf(error)}`, {
    context: { path, layers: chain.length },
    cause: error,
  });
}

class QemuImageReader implements ImageReader {
  readonly sizeBytes: number;
  readonly #client: NbdClient;
  readonly #directory: string;

  constructor(client: NbdClient, directory: string) {
    this.#client = client;
    this.#directory = directory;
    this.sizeBytes = client.info.sizeBytes;
  }

  readInto(target: Uint8Array, offset: number): Promise<void> {
    return this.#client.readInto(target, offset);
  }

  ownExtents(layers: number): Promise<ContentExtents> {
    return depthExtents(this.#client, { maximumDepth: layers });
  }

  contentExtents(): Promise<ContentExtents> {
    return contentExtents(this.#client);
  }

  async close(): Promise<void> {
    await this.#client.close();
    await rm(this.#directory, { recursive: true, force: true });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
