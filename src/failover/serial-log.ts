import { watch } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { unlessAborted } from '../lib/unless-aborted.ts';
import type { Pattern } from '../probe/index.ts';

/** A guest may write what it likes: no more than this of a line is kept and held against a pattern. */
const LINE_CHARS_MAX = 1000;
const READ_BYTES = 64 * 1024;

/**
 * Resolves with the first line of a growing serial log that matches. The log is read from its beginning, and again
 * whenever the file system says that it has grown. Rejects when `signal` is aborted, with its reason.
 */
export async function serialLineMatching(
  path: string,
  pattern: Pattern,
  signal: AbortSignal,
): Promise<string> {
  const file = await open(path, 'r');
  const watcher = watch(path);
  try {
    const lines = new LineCollector();
    const buffer = Buffer.alloc(READ_BYTES);
    for (;;) {
      const grown = Promise.withResolvers<void>();
      // While the log is being read nobody awaits this yet; whoever does then gets the rejection.
      grown.promise.catch(() => undefined);
      watcher.removeAllListeners().once('change', () => grown.resolve());
      watcher.once('error', (error) => grown.reject(error));
      const found = await readOn(file, buffer, lines, pattern);
      if (found !== undefined) return found;
      await unlessAborted(grown.promise, signal);
    }
  } finally {
    watcher.close();
    await file.close();
  }
}

async function readOn(
  file: FileHandle,
  buffer: Buffer,
  lines: LineCollector,
  pattern: Pattern,
): Promise<string | undefined> {
  for (;;) {
    const { bytesRead } = await file.read(buffer, 0, buffer.length, null);
    if (bytesRead === 0) return undefined;
    const found = lines.take(buffer.toString('latin1', 0, bytesRead)).find((line) => pattern.test(line));
    if (found !== undefined) return found;
  }
}

/** Text in pieces → lines, the unfinished last one included as it stands. */
export class LineCollector {
  #rest = '';

  /** The lines that this piece ended, and the beginning of the next if there is one; each at most 1000 characters. */
  take(text: string): string[] {
    const parts = text.split(/\r?\n|\r/);
    parts[0] = this.#rest + parts[0];
    const lines = parts.map((line) => line.slice(0, LINE_CHARS_MAX));
    this.#rest = lines.at(-1)!;
    return lines.filter((line) => line !== '');
  }
}
