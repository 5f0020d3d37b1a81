import assert from 'node:assert/strict';
import { it } from 'node:test';
import { asking } from './asking.ts';

it('S0.17 a witness is made to forget the leases of a machine on a person’s word', async (t) => {
  const { ask } = await asking(t, { done: true });
  const unsure = await ask('vm', 'lease', 'web', '--forget');
  assert.notEqual(unsure.exitCode, 0);
  const both = await ask('vm', 'lease', 'web', '--forget', '--off');
  assert.notEqual(both.exitCode, 0);
  assert.equal(both.asked.trim(), '', 'nothing was asked of the site');
  const sure = await ask('vm', 'lease', 'web', '--forget', '--confirm-not-run');
  assert.deepEqual([sure.exitCode, sure.asked], [0, 'DELETE /v1/leases/web'], sure.output);
});
