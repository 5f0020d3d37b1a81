import assert from 'node:assert/strict';
import { QemuImages } from '../../src/hypervisor/index.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { silentLog } from '../../src/lib/log.ts';
import { nodeFiles } from '../../src/lib/node-files.ts';
import { Zones } from '../../src/recovery-point/index.ts';
import { Replicas, verifyPoint } from '../../src/replica/index.ts';
import { assertLedger } from './lab-sites.ts';

/**
 * Fails the test unless every point of the only replica of a site, which does not run, is what was signed, is listed
 * once, and holds the ledger of the lab guest, the newest one up to `promised`. Returns how many there are.
 */
export async function assertWholeReplicaAt(dataDirectory: string, promised: number): Promise<number> {
  const images = new QemuImages({ clock: systemClock });
  const tools = {
    ...{ files: nodeFiles, images, clock: systemClock, log: silentLog },
    zones: new Zones(),
    isSignedBySource: () => true,
  };
  const replicas = await Replicas.open(tools, dataDirectory);
  assert.deepEqual(replicas.broken, []);
  const [replica] = replicas.list();
  const sequences = replica!.points.map(({ statement }) => statement.sequence);
  assert.deepEqual([...new Set(sequences)], sequences);
  let held = 0;
  for (const { statement } of replica!.points) {
    await verifyPoint(tools, replica!, statement.pointId);
    const chainOf = (disk: string) =>
      replica!.chain(statement.pointId, disk === 'system' ? 'disk0' : 'disk1');
    held = await assertLedger(images, chainOf, held);
  }
  assert.ok(held >= promised, `the newest point ends with ${held}, ${promised} were promised`);
  return sequences.length;
}
