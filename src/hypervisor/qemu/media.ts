import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';
import { systemCodeOf } from '../../lib/errors.ts';
import type { Medium } from '../configuration.ts';

const NOT_HERE = ['ENOENT', 'ENOTDIR', 'EACCES', 'EISDIR'];

/** In hexadecimal; undefined for a file that is not there or cannot be read. */
export async function sha256Of(path: string): Promise<string | undefined> {
  const hash = createHash('sha256');
  try {
    await pipeline(createReadStream(path), hash);
  } catch (error) {
    if (NOT_HERE.includes(systemCodeOf(error) ?? '')) return undefined;
    throw error;
  }
  return hash.digest('hex');
}

/** The media of CD drives that this host has: files of gigabytes are read once, and again when they have changed. */
export class MediaHere {
  readonly #known = new Map<string, { readonly asOf: string; readonly sha256: string | undefined }>();

  /** The digests of those that are at their paths with their content. */
  async among(media: readonly Medium[]): Promise<ReadonlySet<string>> {
    const here = new Set<string>();
    for (const { path, sizeBytes, sha256 } of media) {
      if ((await this.#digestOf(path, sizeBytes)) === sha256) here.add(sha256);
    }
    return here;
  }

  async #digestOf(path: string, sizeBytes: number): Promise<string | undefined> {
    const asOf = await stateOf(path);
    if (asOf?.sizeBytes !== sizeBytes) return undefined;
    const known = this.#known.get(path);
    if (known?.asOf === asOf.changed) return known.sha256;
    const sha256 = await sha256Of(path);
    this.#known.set(path, { asOf: asOf.changed, sha256 });
    return sha256;
  }
}

async function stateOf(path: string): Promise<{ sizeBytes: number; changed: string } | undefined> {
  try {
    const { size, mtimeMs, ctimeMs, ino } = await stat(path);
    return { sizeBytes: size, changed: `${size} ${mtimeMs} ${ctimeMs} ${ino}` };
  } catch (error) {
    if (NOT_HERE.includes(systemCodeOf(error) ?? '')) return undefined;
    throw error;
  }
}
