/**
 * A parent that is killed in the middle of a freeze: it freezes, prints a word, and waits for its end.
 * Arguments: the agent's socket, the limit in milliseconds.
 */
import { fileURLToPath } from 'node:url';
import { systemClock as clock } from '../../../src/lib/clock.ts';
import { FreezeGuard } from '../../../src/qmp/index.ts';

export const FREEZE_PARENT = fileURLToPath(import.meta.url);

if (import.meta.main) {
  const [agentPath = '', limitMs = ''] = process.argv.slice(2);
  const guard = await FreezeGuard.start({ agentPath, limitMs: Number(limitMs), clock });
  await guard.freeze();
  process.stdout.write('frozen\n');
}
