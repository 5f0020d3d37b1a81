import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { reportCopy } from '../../../src/control/machines/copy-alerts.ts';
import type { CutRecord } from '../../../src/replication/index.ts';
import { MACHINE_ID } from './fake-machine.ts';

type Copy = Partial<Pick<CutRecord, 'consistency' | 'degraded' | 'leftOut' | 'hooks'>>;

/** What stands, by key, after each of these copies was reported. */
function reporting() {
  const standing = new Map<string, string>();
  const alerts: Parameters<typeof reportCopy>[0] = {
    raise: (key, severity, { code, message }, machineId) => {
      assert.equal(machineId, MACHINE_ID);
      standing.set(key, `${severity} ${code}: ${message}`);
    },
    clear: (key) => void standing.delete(key),
  };
  return (copy: Copy) => {
    reportCopy(alerts, { machineId: MACHINE_ID, name: 'box' }, {
      consistency: 'crash',
      ...copy,
    } as CutRecord);
    return Object.fromEntries(standing);
  };
}

describe('alerts of a copy', () => {
  it('tell of one that is less than its type strives for, until one is what it should be', () => {
    const after = reporting();
    const key = `degraded:${MACHINE_ID}`;
    const said = 'warning COPY_DEGRADED: a copy of box is crash-consistent only: the agent hangs';
    assert.deepEqual(after({ degraded: 'the agent hangs' }), { [key]: said });
    assert.deepEqual(after({}), { [key]: said }, 'a copy that strives for nothing proves nothing');
    assert.deepEqual(after({ consistency: 'application' }), {});
    assert.deepEqual(after({ consistency: 'application', degraded: 'no cut of the whole group' }), {
      [key]: 'warning COPY_DEGRADED: a copy of box is less than was asked for: no cut of the whole group',
    });
    assert.deepEqual(after({ consistency: 'application' }), {});
  });

  it('tell of disks that no copy has, until none is left out', () => {
    const after = reporting();
    const key = `left-out:${MACHINE_ID}`;
    const said = 'critical MACHINE_DISK_LEFT_OUT: box has disks that are not replicated: ';
    assert.deepEqual(after({ leftOut: ['vdb', 'vdc'] }), { [key]: `${said}vdb, vdc` });
    assert.deepEqual(after({ leftOut: ['vdc'] }), { [key]: `${said}vdc` });
    assert.deepEqual(after({ leftOut: [] }), {});
    after({ leftOut: ['vdb'] });
    assert.deepEqual(after({}), {});
  });

  it('tell of hooks that left the guest in doubt, until a copy with hooks went well', () => {
    const after = reporting();
    const key = `hooks:${MACHINE_ID}`;
    const went = { tookMs: 1, hasBegun: true };
    const before = { hook: 'before' as const, ...went, failure: 'it ended with exit code 1' };
    const failed = {
      hook: 'after' as const,
      ...went,
      failure: 'it ended with exit code 2',
      output: 'locked\n',
    };
    const alarm = { hook: 'onFailure' as const, ...went, failure: 'out of time' };
    assert.deepEqual(after({ hooks: [before] }), {}, 'that is told as a copy that is less');
    assert.deepEqual(after({ hooks: [before, failed, alarm] }), {
      [key]:
        'warning COPY_HOOK_FAILED: after a copy of box: the after hook failed: it ended with exit code 2: locked; the onFailure hook failed: out of time',
    });
    assert.equal(key in after({}), true, 'a copy without hooks proves nothing');
    assert.deepEqual(after({ hooks: [{ hook: 'after', ...went, exitCode: 0 }] }), {});
  });

  it('stand beside each other', () => {
    const all = reporting()({
      degraded: 'the agent hangs',
      leftOut: ['vdb'],
      hooks: [{ hook: 'after', tookMs: 1, hasBegun: false, failure: 'no agent' }],
    });
    assert.deepEqual(
      Object.keys(all),
      ['degraded', 'left-out', 'hooks'].map((kind) => `${kind}:${MACHINE_ID}`),
    );
  });
});
