/** A program in the place of somebody's word: which of its ends count, what it is told, and that nothing is taken before it has ended well. */
import assert from 'node:assert/strict';
import { chmod, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { type FencedSide, fenceBy, lackOfFence, SitePrograms } from '../../../src/failover/index.ts';
import { fencedRight } from '../../../src/failover/right.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { isFailure } from '../../../src/lib/errors.ts';
import type { Claim, Tenure } from '../../../src/recovery-point/index.ts';
import type { Replica } from '../../../src/replica/index.ts';
import { type CleanUp, temporaryDirectory } from '../../support/temporary.ts';

const SIDE: FencedSide = { machineId: 'm', machineName: 'db', siteId: 'home', epoch: 4 };

async function fencing(t: CleanUp, script: string) {
  const directory = join(await temporaryDirectory(t), 'programs');
  await mkdir(directory, { mode: 0o755 });
  await writeFile(join(directory, 'off'), `#!/bin/sh\n${script}\n`);
  await chmod(join(directory, 'off'), 0o755);
  const programs = new SitePrograms({ directory, clock: systemClock, ownId: process.getuid!() });
  return (o: { limitMs?: number; arguments?: string[]; signal?: AbortSignal } = {}) => {
    const { signal, ...how } = o;
    return fenceBy(
      { programs, clock: systemClock },
      { program: 'off', ...how },
      { side: SIDE, environment: { WARMSITE_OTHER_SITE: 'north' }, ...(signal ? { signal } : {}) },
    );
  };
}

/** A replica that follows `home` in epoch 4, as far as its right goes. */
function replicaOf(): { replica: Replica; hear: (claim: Claim) => void; tenure: () => Tenure | undefined } {
  let record = {
    ...{ machineId: 'm', machineName: 'db', sourceSiteId: 'home', epoch: 4, retention: { types: {} } },
  } as unknown as Replica['record'];
  const replica = {
    get record() {
      return record;
    },
    update: async (change: (before: Replica['record']) => object | undefined) => {
      record = { ...record, ...change(record) };
    },
  } as unknown as Replica;
  return {
    replica,
    hear: (claim) => {
      record = { ...record, tenure: { state: 'follows', claim } };
    },
    tenure: () => record.tenure,
  };
}

describe('fencing by a program', () => {
  it('S0.17 only its end with 0 within its time counts', () => {
    const ended = { outcome: 'ended', exitCode: 0, output: 'off\n' } as const;
    assert.equal(lackOfFence(ended, 1000), undefined);
    assert.equal(lackOfFence({ ...ended, exitCode: 1 }, 1000), 'it ended with exit code 1: off');
    assert.equal(lackOfFence({ ...ended, exitCode: 128, output: '' }, 1000), 'it ended with exit code 128');
    const late = lackOfFence({ ...ended, outcome: 'out-of-time' }, 1000);
    assert.equal(late, 'it had not ended after 1000 ms, and was killed: off');
  });

  it('S0.17 it is told what is to be off, and the end of what it prints is kept', async (t) => {
    const off = await fencing(
      t,
      'head -c 5000 /dev/zero | tr "\\0" x; echo; echo "$1 $WARMSITE_MACHINE $WARMSITE_MACHINE_ID $WARMSITE_OTHER_SITE $WARMSITE_OTHER_SITE_ID $WARMSITE_EPOCH"',
    );
    const { program, output } = await off({ arguments: ['now'] });
    assert.equal(program, 'off');
    assert.equal(output.split('\n').at(-2), 'now db m north home 4');
    assert.ok(output.startsWith('[cut off]\nxxx') && output.length < 4200, `${output.length}`);
  });

  it('S0.17 every other end is a failure with its remedy', async (t) => {
    const codeAndWords = async (work: Promise<unknown>) => {
      try {
        return await work;
      } catch (error) {
        assert.ok(isFailure(error), String(error));
        return `${error.code} ${error.message}`;
      }
    };
    const refused = await fencing(t, 'echo no power unit; exit 3');
    assert.match(
      String(await codeAndWords(refused())),
      /^FAILOVER_NOT_FENCED db may still run at site home: .* exit code 3: no power unit$/,
    );
    const killed = await fencing(t, 'kill -9 $$');
    assert.match(String(await codeAndWords(killed())), /^FAILOVER_NOT_FENCED .* exit code 128$/);
    const slow = await fencing(t, 'sleep 1000');
    assert.match(String(await codeAndWords(slow({ limitMs: 200 }))), /^FAILOVER_NOT_FENCED .* after 200 ms/);
    // What it leaves running may still be at work on it.
    const leaves = await fencing(t, 'sleep 1000 & exit 0');
    assert.match(
      String(await codeAndWords(leaves({ limitMs: 300 }))),
      /^FAILOVER_NOT_FENCED .* after 300 ms/,
    );
    const cancel = new AbortController();
    const cancelled = slow({ signal: cancel.signal });
    cancel.abort(new Error('never mind'));
    await assert.rejects(cancelled, /never mind/);
  });

  it('S0.17 the right is taken after it, and not if it fails or if another site has the machine meanwhile', async () => {
    const { replica, hear, tenure } = replicaOf();
    const sides: FencedSide[] = [];
    const refusal = new Error('not fenced');
    const failing = fencedRight({ fence: () => Promise.reject(refusal) });
    await assert.rejects(failing(replica, 'away'), refusal);
    assert.equal(tenure(), undefined);

    const overtaken = fencedRight({
      fence: async () => hear({ epoch: 6, siteId: 'third' }),
    });
    await assert.rejects(overtaken(replica, 'away'), { code: 'FAILOVER_FENCED' });
    assert.deepEqual(tenure(), { state: 'follows', claim: { epoch: 6, siteId: 'third' } });

    const fenced = fencedRight({
      fence: async (side) => {
        assert.equal(tenure()?.state, 'follows', 'nothing is taken before');
        sides.push(side);
      },
    });
    await fenced(replica, 'away');
    assert.deepEqual(tenure(), { state: 'holds', claim: { epoch: 7, siteId: 'away' } });
    // Once more, after what came up has ended: the other side is the one that it came from.
    const again = fencedRight({ fence: async (side) => void sides.push(side) });
    await again(replica, 'away');
    assert.deepEqual(tenure(), { state: 'holds', claim: { epoch: 8, siteId: 'away' } });
    assert.deepEqual(
      sides.map(({ siteId, epoch }) => [siteId, epoch]),
      [
        ['third', 6],
        ['home', 7],
      ],
    );
  });
});
