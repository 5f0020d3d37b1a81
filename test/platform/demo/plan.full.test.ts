/** The demonstration of a recovery plan, as somebody types it: three machines that talk to each other, away and home again. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runCommand } from '../../../src/lib/processes.ts';

test('F4 F5 F7 a shop of three machines is rehearsed and recovered by a plan over a mapped network, stays, and comes home with only the difference', {
  timeout: 280_000,
}, async (t) => {
  const { stdout, stderr, exitCode } = await runCommand(process.execPath, ['demo/main.ts', '--plan'], {
    allowExit: [1],
  });
  assert.equal(exitCode, 0, stdout + stderr);
  assert.equal(stdout.match(/^ +✔ /gm)?.length, 10, stdout);
  for (const line of stdout.split('\n  Report\n')[1]!.split('\n').slice(0, 3)) t.diagnostic(line.trim());
  // Bridges and taps have gone with it.
  const { stdout: links } = await runCommand('ip', ['-o', 'link']);
  assert.doesNotMatch(links, /\bwsd\d+[ab]:/);
});
