import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** The part of a test's context that clean-up needs; `node:test` and a bench's own scope both have it. */
export interface CleanUp {
  after(fn: () => void | Promise<void>): void;
}

/** A new directory that is removed when the test ends, passed or failed. Short: unix sockets allow 107 bytes. */
export async function temporaryDirectory(t: CleanUp): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'ws-'));
  t.after(() => rm(path, { recursive: true, force: true }));
  return path;
}
