import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { assert } from '../../lib/assert.ts';
import { type Clock, sleep } from '../../lib/clock.ts';
import { isFailure, messageOf } from '../../lib/errors.ts';
import { contentExtents, depthExtents, NbdClient } from '../../nbd/index.ts';
import { hypervisorFailure } from '../errors.ts';
import type { ContentExtents, DiskImages, ImageFile, ImageReader } from '../images.ts';
import { type BoundServer, runBound, startBound } from './bound-process.ts';
import { chainFileName } from './chain-options.ts';
import { sizeOf } from './image-size.ts';

/** Two connections keep a reader busy while the other waits for the disk; more gain nothing on a unix socket. */
const CONNECTIONS = 2;

const THROUGH_CACHE = ['--cache=writeback'];
/** Every file of the chain inherits both. Requests of the kernel's own kind spare the thread for each read. */
const FROM_DEVICE = ['--cache=none', '--aio=native'];
/** What QEMU says where a file system has no O_DIRECT, and where it was built without Linux AIO. */
const DIRECT_REFUSED = /O_DIRECT|cache\.direct|aio=native/;

/**
 * A process that was just killed, or has just let go of its last client, still holds its locks: for a moment, or, killed
 * inside a sync on a busy disk, until that has ended.
 */
const LOCK_PATIENCE_MS = 30_000;
const LOCK_PAUSE_MS = 100;

/**
 * Disk images through QEMU's own tools: `qemu-nbd` serves a chain on a unix socket that is gone once we are connected.
 * Whatever is started here ends with this process.
 */
export class QemuImages implements DiskImages {
  readonly #clock: Clock;

  constructor(o: { clock: Clock }) {
    this.#clock = o.clock;
  }

  async open(
    chain: readonly ImageFile[],
    options: { readonly fromDevice?: boolean } = {},
  ): Promise<ImageReader> {
    if (!options.fromDevice) return await this.#open(chain, THROUGH_CACHE);
    try {
      return await this.#open(chain, FROM_DEVICE);
    } catch (error) {
      // Only what the direct way itself was refused for is tried again; what else is wrong is wrong with either.
      if (!isFailure(error, 'IMAGE_UNREADABLE') || !DIRECT_REFUSED.test(error.message)) throw error;
      return await this.#open(chain, THROUGH_CACHE);
    }
  }

  async #open(chain: readonly ImageFile[], cacheOptions: readonly string[]): Promise<ImageReader> {
    const directory = await mkdtemp(join(tmpdir(), 'ws-nbd-'));
    try {
      const path = join(directory, 's');
      const server = await startBound('qemu-nbd', [
        '--read-only',
        '--allocation-depth',
        `--shared=${CONNECTIONS}`,
        `--socket=${path}`,
        ...cacheOptions,
        chainFileName(chain, { 'read-only': true }),
      ]);
      try {
        const client = await this.#connected(path, server, chain);
        return new QemuImageReader({ client, server });
      } catch (error) {
        await server.end();
        throw error;
      }
    } finally {
      // Who is connected stays so. A process that is killed later leaves no socket behind, and nobody else finds it.
      await rm(directory, { recursive: true, force: true });
    }
  }

  #connected(path: string, server: BoundServer, chain: readonly ImageFile[]): Promise<NbdClient> {
    const clock = this.#clock;
    const contexts = ['base:allocation', 'qemu:allocation-depth'];
    return server.connected({
      ...{ clock, path },
      connect: () =>
        NbdClient.connect({
          ...{ clock, contexts, address: { kind: 'unix', path } },
          ...{ exportName: '', connections: CONNECTIONS },
        }),
      // It listens before it opens the image, and when it cannot, it drops who waits.
      mayCome: (error) => isFailure(error, 'NBD_UNREACHABLE', 'NBD_DISCONNECTED'),
      ended: (words, cause) =>
        unreadable(chain, words || 'the server of the image ended without a word', cause),
    });
  }

  async commit(chain: readonly ImageFile[]): Promise<void> {
    const [base, top] = chain.slice(-2);
    assert(base !== undefined && top !== undefined, 'a commit has two files at the least');
    const deadlineMs = this.#clock.monotonicMs() + LOCK_PATIENCE_MS;
    let cacheMode = 'none';
    for (;;) {
      try {
        // -d: do not empty the top afterwards; it stays a whole layer until its file is removed.
        const images = chainFileName(chain, { 'read-only': false });
        await runBound('qemu-img', ['commit', '-q', '-d', '-t', cacheMode, images]);
        break;
      } catch (error) {
        const said = isFailure(error) ? error.message : '';
        if (cacheMode === 'none' && DIRECT_REFUSED.test(said)) {
          cacheMode = 'writeback';
          continue;
        }
        const isLocked = /Failed to get .* lock/.test(said);
        if (isLocked && this.#clock.monotonicMs() < deadlineMs) {
          await sleep(this.#clock, LOCK_PAUSE_MS);
          continue;
        }
        throw hypervisorFailure(
          'COMMIT_FAILED',
          `cannot commit ${top.path} into ${base.path}: ${messageOf(error)}`,
          { context: { base: base.path, top: top.path }, cause: error },
        );
      }
    }
    await syncFile(base.path);
  }

  async reparent(image: ImageFile, backing: ImageFile): Promise<void> {
    // -u: only the header is written; nothing of the old or the new backing file is opened.
    await runBound('qemu-img', [
      ...['rebase', '-u', '-f', image.format],
      ...['-F', backing.format, '-b', backing.path, image.path],
    ]);
    await syncFile(image.path);
  }

  async grow(image: ImageFile, sizeBytes: number): Promise<void> {
    const { path, format } = image;
    // The tool refuses to make an image smaller.
    if (((await sizeOf(image)) ?? 0) < sizeBytes)
      await runBound('qemu-img', ['resize', '-q', '-f', format, path, String(sizeBytes)]);
    // Also of what is as large already: whoever has grown it need not have synced it.
    await syncFile(path);
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

function unreadable(chain: readonly ImageFile[], words: string, cause: unknown) {
  const path = chain.at(-1)?.path ?? '';
  // The tool repeats the description of the whole chain, which hides what it has to say.
  const said = words.replace(/'json:\{.*\}'/s, 'the chain');
  return hypervisorFailure('IMAGE_UNREADABLE', `cannot open ${path}: ${said}`, {
    context: { path, layers: chain.length },
    cause,
  });
}

class QemuImageReader implements ImageReader {
  readonly sizeBytes: number;
  readonly #client: NbdClient;
  readonly #server: BoundServer;

  constructor(o: { client: NbdClient; server: BoundServer }) {
    this.#client = o.client;
    this.#server = o.server;
    this.sizeBytes = o.client.info.sizeBytes;
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
    // On return nobody holds the files open: whoever waited for that may write to them.
    await this.#server.end();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
