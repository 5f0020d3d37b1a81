/**
 * A site process that is killed, or stopped, in the middle of a common pause: it stops the machines, prints a word, and
 * waits for its end. Arguments: the limit in milliseconds, the QMP sockets.
 */
import { fileURLToPath } from 'node:url';
import { QemuHypervisor } from '../../src/hypervisor/index.ts';
import { systemClock as clock } from '../../src/lib/clock.ts';

export const PAUSE_PARENT = fileURLToPath(import.meta.url);

if (import.meta.main) {
  const [limitMs = '', ...paths] = process.argv.slice(2);
  const hypervisor = new QemuHypervisor({ clock });
  const machines = await Promise.all(paths.map((qmpPath) => hypervisor.attach({ qmpPath })));
  const { together, reason } = await hypervisor.whilePaused(machines, Number(limitMs), () => {
    process.stdout.write('stopped\n');
    return new Promise(() => undefined);
  });
  process.stdout.write(`${JSON.stringify({ together, reason })}\n`);
  await Promise.all(machines.map((machine) => machine.disconnect()));
}
