import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type LiveBranch, LiveBranches } from '../../../src/failover/live-branches.ts';
import { TestGuard } from '../../../src/failover/test-guard.ts';
import type { FailoverTools } from '../../../src/failover/tools.ts';
import type { Standstill } from '../../../src/hypervisor/index.ts';
import { silentLog } from '../../../src/lib/log.ts';

const FLOOR_BYTES = 1000 * 2 ** 20;

/** A site with a test and a failover, whose guests stand still or run as told. */
function site() {
  const space = { freeBytes: 0 };
  const tools = {
    ...{ log: silentLog, freeBytes: async () => space.freeBytes },
    testRules: () => ({ mostRunning: 9, freeFloorBytes: FLOOR_BYTES }),
  } as unknown as FailoverTools;
  const live = new LiveBranches(tools);
  const guests: Record<'test' | 'failover', Standstill | undefined> = {
    test: undefined,
    failover: undefined,
  };
  for (const purpose of ['test', 'failover'] as const) {
    const machine = {
      gone: new Promise<void>(() => undefined),
      standstill: async () => guests[purpose],
      state: async () => {
        const { why = 'running' } = guests[purpose] ?? {};
        return why === 'no-space' ? 'io-error' : why;
      },
      pause: async () => {
        guests[purpose] ??= { why: 'paused' };
      },
      resume: async () => {
        guests[purpose] = undefined;
      },
    };
    live.adopt({ branch: { branchId: `a ${purpose}`, purpose }, machine } as unknown as LiveBranch);
  }
  return { space, guests, guard: new TestGuard(tools, live) };
}

const NO_SPACE: Standstill = { why: 'no-space', deviceNames: [] };

describe('machines at the recovery site on a full disk', () => {
  it('go on when there is room, failovers too, and people are told until then', async () => {
    const { space, guests, guard } = site();
    Object.assign(guests, { test: NO_SPACE, failover: NO_SPACE });
    for (const freeBytes of [0, FLOOR_BYTES]) {
      space.freeBytes = freeBytes;
      const told = await guard.hold();
      assert.equal(told?.code, 'FAILOVER_NO_SPACE');
      assert.match(told.message, /^no space is left for a test, a failover, which stand still/);
      assert.deepEqual(guests, { test: NO_SPACE, failover: NO_SPACE });
    }
    space.freeBytes = 1.1 * FLOOR_BYTES;
    assert.equal(await guard.hold(), undefined);
    assert.deepEqual(guests, { test: undefined, failover: undefined });
  });

  it('are not continued where they stand still for another reason', async () => {
    const { space, guests, guard } = site();
    space.freeBytes = 2 * FLOOR_BYTES;
    const failed: Standstill = { why: 'io-error', deviceNames: [] };
    Object.assign(guests, { test: failed, failover: { why: 'paused' } });
    assert.equal(await guard.hold(), undefined);
    assert.deepEqual(guests, { test: failed, failover: { why: 'paused' } });
  });

  it('are paused before that if they are tests, and failovers never', async () => {
    const { space, guests, guard } = site();
    space.freeBytes = FLOOR_BYTES - 1;
    assert.equal((await guard.hold())?.code, 'FAILOVER_SPACE_LOW');
    assert.deepEqual(guests, { test: { why: 'paused' }, failover: undefined });
    space.freeBytes = 1.1 * FLOOR_BYTES;
    assert.equal(await guard.hold(), undefined);
    assert.deepEqual(guests, { test: undefined, failover: undefined });
  });
});
