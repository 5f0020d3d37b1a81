import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { IoErrors } from '../../../src/hypervisor/qemu/io-errors.ts';

type IoStatus = 'ok' | 'nospace' | 'failed';

/** `query-block` of a machine with these disks; a disk's tip is a node of the same name with «-tip». */
function disks(of: Readonly<Record<string, IoStatus>>) {
  return Object.entries(of).map(([qdev, status]) => ({
    ...{ qdev, device: '', 'io-status': status },
    inserted: { 'node-name': `${qdev}-tip` },
  }));
}

function failed(node: string, nospace: boolean, action = 'stop') {
  return { 'node-name': node, device: '', operation: 'write', action, nospace };
}

describe('why QEMU has stopped its guest', () => {
  it('is what it told since the guest ran last, though the status of a device keeps its first error for ever', () => {
    const errors = new IoErrors();
    const both = disks({ a: 'nospace', b: 'nospace' });
    errors.hear('BLOCK_IO_ERROR', failed('a-tip', true));
    assert.deepEqual(errors.standstill(both), { why: 'no-space', deviceNames: ['a'] });
    errors.hear('RESUME', {});
    errors.hear('BLOCK_IO_ERROR', failed('b-tip', false));
    assert.deepEqual(errors.standstill(both), { why: 'io-error', deviceNames: ['b'] });
  });

  it('is lack of space only if nothing else has failed', () => {
    const errors = new IoErrors();
    for (const isFull of [true, false, true]) errors.hear('BLOCK_IO_ERROR', failed('a-tip', isFull));
    assert.equal(errors.standstill(disks({ a: 'nospace' })).why, 'io-error');
  });

  it('is told by the devices where we came later, and by no error that only the guest was told of', () => {
    const errors = new IoErrors();
    errors.hear('BLOCK_IO_ERROR', failed('b-tip', false, 'report'));
    const found = errors.standstill(disks({ a: 'nospace', b: 'ok' }));
    assert.deepEqual(found, { why: 'no-space', deviceNames: ['a'] });
    assert.equal(errors.standstill(disks({ a: 'nospace', b: 'failed' })).why, 'io-error');
    assert.deepEqual(errors.standstill(disks({ a: 'ok' })), { why: 'io-error', deviceNames: [] });
  });

  it('is remembered when a cut has given the disk another tip', () => {
    const errors = new IoErrors();
    errors.hear('BLOCK_IO_ERROR', failed('an older tip', true));
    const found = errors.standstill(disks({ a: 'nospace', b: 'ok' }));
    assert.deepEqual(found, { why: 'no-space', deviceNames: ['a'] });
  });
});
