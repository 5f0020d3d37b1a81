import assert from 'node:assert/strict';
import { chmod, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { systemClock } from '../../../src/lib/clock.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { systemRandom } from '../../../src/lib/random.ts';
import { findBrowser, printPdf } from '../../../src/report/index.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

const TOOLS = { files: nodeFiles, clock: systemClock, random: systemRandom };

async function program(directory: string, name: string, script: string): Promise<string> {
  const path = join(directory, name);
  await writeFile(path, `#!/bin/sh\n${script}\n`);
  await chmod(path, 0o755);
  return path;
}

describe('printing a report', () => {
  it('F9 says what is missing where there is no browser', async (t) => {
    const directory = await temporaryDirectory(t);
    await assert.rejects(findBrowser(undefined, directory), { code: 'REPORT_NO_BROWSER' });
    await assert.rejects(findBrowser('/nowhere/browser', directory), { code: 'REPORT_NO_BROWSER' });
    const path = await program(directory, 'chromium', 'exit 0');
    assert.equal(await findBrowser(undefined, `/nowhere:${directory}`), path);
    assert.equal(await findBrowser('chromium', directory), path);
  });

  it('F9 ends a browser that hangs, tells what one has said, and leaves nothing', async (t) => {
    const directory = await temporaryDirectory(t);
    const print = (browser: string) =>
      printPdf(TOOLS, { page: '<!doctype html>', browser, scratchDirectory: directory, limitMs: 1500 });
    const hanging = await program(directory, 'hanging', 'sleep 1000 & wait');
    await assert.rejects(print(hanging), { code: 'REPORT_NOT_PRINTED', message: /after 1.5 s/ });
    const failing = await program(directory, 'failing', 'echo no display >&2; exit 3');
    await assert.rejects(print(failing), { code: 'REPORT_NOT_PRINTED', message: /no display/ });
    const idle = await program(directory, 'idle', 'exit 0');
    await assert.rejects(print(idle), { code: 'REPORT_NOT_PRINTED', message: /printed no PDF/ });
    assert.deepEqual(await nodeFiles.list(directory), ['failing', 'hanging', 'idle']);
  });
});
