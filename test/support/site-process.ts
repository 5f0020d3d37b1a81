/**
 * The processes of both sites in one that a test may kill at any instant: `site-process.ts IDENTITY MODE`, where
 * IDENTITY is a file that holds a `TwoSitesIdentity`. Tells on standard output what it has done, a JSON line each.
 *
 * `replicate`: checks what it finds, then cuts and sends without end. `freeze`: begins an application-consistent cut that never ends. `cut TYPE`: makes
 * copies of a type without end. `unprotect STEP`: ends the protection and hangs while the guest stands still.
 */
import { readFile } from 'node:fs/promises';
import { PIVOT_STEPS, pivotHangsAt } from './hanging-pivot.ts';
import { assertSound, FEW_POINTS, labHistory, listedIn } from './lab-sites.ts';
import type { LifeNews } from './site-life.ts';
import { openTwoSites, reopenMachine } from './two-sites.ts';

const [, , identityPath, mode, detail] = process.argv;
const identity = JSON.parse(await readFile(identityPath!, 'utf8'));
const sites = await openTwoSites({ after: () => undefined }, identity);
const machine = await reopenMachine(sites);
const { state } = await machine.attach();
const tell = (news: LifeNews | { readonly news: 'frozen' | 'stands still' }) =>
  process.stdout.write(`${JSON.stringify(news)}\n`);
tell({ news: 'ready', state });

if (mode === 'freeze') {
  machine.running!.cut = () => {
    tell({ news: 'frozen' });
    return new Promise(() => undefined);
  };
  await machine.cut('app');
}

if (mode === 'unprotect') {
  const step = PIVOT_STEPS.find((known) => known === detail)!;
  pivotHangsAt(machine.running!, step, () => tell({ news: 'stands still' }));
  await machine.unprotect();
}

while (mode === 'cut') await machine.cut(detail!);

const replica = sites.replicas.list()[0]!;
const tellPoints = () => tell({ news: 'points', points: listedIn(replica) });
tellPoints();
tell({ news: 'sound', held: await assertSound(sites, machine, 0, labHistory(FEW_POINTS.types.crash)) });
for (;;) {
  const { cutId } = await machine.cut('crash');
  tell({ news: 'cut', cutId });
  for (;;) {
    const outcome = await machine.replicate(sites.target);
    if (outcome.kind === 'nothing') break;
    const { pointId, sequence } = outcome.acknowledgement;
    const wireBytes = outcome.kind === 'sent' ? outcome.wireBytes : 0;
    tell({ news: 'acknowledged', pointId, sequence, wireBytes });
    tellPoints();
  }
  await replica.retire(FEW_POINTS, () => false);
}
