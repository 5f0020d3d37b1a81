import { constants } from 'node:fs';
import { systemClock, withTimeout } from '../../lib/clock.ts';
import { isFailure } from '../../lib/errors.ts';
import { runCommand } from '../../lib/processes.ts';
import type { Medium } from '../configuration.ts';
import { hypervisorFailure } from '../errors.ts';

const LOOK_LIMIT_MS = 3_000;
/** Some gigabytes from a slow disk. */
const DIGEST_LIMIT_MS = 120_000;

/** In hexadecimal; undefined for a file that is not there, cannot be read, or not in time. */
export async function sha256Of(path: string): Promise<string | undefined> {
  const said = await saidBy('sha256sum', ['-b', '--', path], DIGEST_LIMIT_MS);
  return /^\\?([0-9a-f]{64}) /.exec(said ?? '')?.[1];
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

/**
 * Of a file that has content; undefined for what is not there, is none, or does not answer. Looked at by a process of its own: a medium may lie on a
 * server that is gone, and a thread of this process would wait for it for ever.
 */
async function stateOf(path: string): Promise<{ sizeBytes: number; changed: string } | undefined> {
  const said = await saidBy('stat', ['-L', '-c', '%s %.9Y %.9Z %i %f', '--', path], LOOK_LIMIT_MS);
  const [, size, changed, mode] = /^(\d+) ([\d.,]+ [\d.,]+ \d+) ([0-9a-f]+)$/.exec(said?.trim() ?? '') ?? [];
  // Anything but a regular file may have no end.
  if ((Number.parseInt(mode ?? '', 16) & constants.S_IFMT) !== constants.S_IFREG) return undefined;
  return { sizeBytes: Number(size), changed: `${size} ${changed}` };
}

/** What a program prints; undefined if it fails, or is not done in time. */
async function saidBy(
  command: string,
  args: readonly string[],
  limitMs: number,
): Promise<string | undefined> {
  const late = () => hypervisorFailure('MEDIUM_SILENT', `${args.at(-1)} did not answer in time`);
  try {
    const work = (signal: AbortSignal) => runCommand(command, args, { signal });
    return (await withTimeout(systemClock, limitMs, work, late)).stdout;
  } catch (error) {
    if (isFailure(error)) return undefined;
    throw error;
  }
}
