import assert from 'node:assert/strict';
import { it } from 'node:test';
import type { StartCheckView } from '../../../src/api/index.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { newId, systemRandom } from '../../../src/lib/random.ts';
import { asking } from './asking.ts';

const GOOD: StartCheckView = {
  ...{ pointId: newId(systemClock, systemRandom), sequence: 17, wouldStart: true, findings: [] },
};
const FINDING = { code: 'MACHINE_TYPE_MISSING', found: 'QEMU here has no machine type x', remedy: 'Get it.' };

it('F8 what would not start is told with its reasons, and by the exit code', async (t) => {
  const good = await (await asking(t, GOOD)).ask('failover', 'check', 'web', '--point', '17');
  assert.deepEqual([good.exitCode, good.asked], [0, 'GET /v1/machines/web/points/17/start']);
  assert.match(good.output, /Point 17 of web would start here\./);
  const findings = [{ ...FINDING, prevents: true }];
  const bad = await (await asking(t, { ...GOOD, wouldStart: false, findings })).ask(
    'failover',
    'check',
    'web',
  );
  assert.deepEqual([bad.exitCode, bad.asked], [1, 'GET /v1/machines/web/points/latest/start']);
  assert.match(bad.output, /would not start here, because\n +QEMU here has no machine type x\n.*Get it\./);
  const other = { ...GOOD, findings: [{ ...FINDING, prevents: false }] };
  const differs = await (await asking(t, other)).ask('failover', 'check', 'web');
  assert.equal(differs.exitCode, 0);
  assert.match(differs.output, /and not be the same/);
});
