import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** The part of a test's context that clean-up needs; `node:test` and a bench's own scope both have it. */
export interface CleanUp {
  /** The file of the test. */
  readonly filePath?: string | undefined;
  after(fn: () => void | Promise<void>): void;
}

const UNIT_TESTS = join(import.meta.dirname, '..', 'unit');

/**
 * A new directory that is removed when the test ends, passed or failed. Short: unix sockets allow 107 bytes. Unit tests get one
 * in memory if the runner has found room there: they ask what is written and in which order, not how long a disk takes for it.
 */
export async function temporaryDirectory(t: CleanUp): Promise<string> {
  const inMemory = t.filePath?.startsWith(UNIT_TESTS) ? process.env.WARMSITE_TEST_MEMORY : undefined;
  const path = await mkdtemp(join(inMemory ?? tmpdir(), 'ws-'));
  t.after(() => rm(path, { recursive: true, force: true }));
  return path;
}
