/** A machine whose owner has put the file of a disk elsewhere: told, interrupted at every step, told again, and put back. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isFailure } from '../../../src/lib/errors.ts';
import { sized } from '../../support/size.ts';
import { type TwoDiskBox, twoDiskBox } from '../../support/two-disk-box.ts';

/** It is interrupted at one step in so many. */
const STRIDE = sized({ what: 'S0.28: steps between interruptions of a move', normal: 5, full: 1 });

const [HERE, THERE] = ['/owner/one.qcow2', '/else/one.qcow2'];

const at = (path: string) => ({ files: { one: { path, format: 'qcow2' as const } } });

async function put({ files }: TwoDiskBox, from: string, to: string): Promise<void> {
  await files.makeDirectory('/else');
  await files.rename(from, to);
  for (const directory of ['/', '/owner', '/else']) await files.syncDirectory(directory);
}

test('S0.28 a move that is interrupted at any step, also by a power cut, is as good as told or not told; told again it stands', async (t) => {
  let interrupted = 0;
  let known = 0;
  for (const isPowerLost of [false, true]) {
    for (let acts = Number(isPowerLost), hasDied = true; hasDied; acts += STRIDE) {
      const box = await twoDiskBox();
      box.fake().kill();
      await put(box, HERE, THERE);
      const { site } = await box.until(acts, (machine) => machine.move(at(THERE)));
      hasDied = site.isDead;
      interrupted += Number(hasDied);
      if (isPowerLost) box.losePower(acts + 1);
      const when = `before act ${acts} («${site.diedBefore}»)${isPowerLost ? ', then a power cut' : ''}`;

      const next = await box.open();
      const { state } = await next.attach();
      const isKnown = next.record.disks[0]!.chain.at(-1)!.path === THERE;
      assert.equal(state, isKnown ? 'stopped' : 'stale', when);
      known += Number(isKnown);
      await next.move(at(THERE));
      assert.deepEqual([next.presence.state, next.record.suspect], ['stopped', undefined], when);
      assert.equal(next.chain('one')[0]!.path, THERE);
      assert.equal(next.cuts[0]!.sealed.one!.path, THERE, 'the first copy sealed the file, wherever it is');
      await next.cut('crash');
      await next.release();

      // Put back, told, and ended: everything that the guest wrote is in its owner's files.
      await put(box, THERE, HERE);
      const last = await box.open();
      await last.attach();
      await last.move(at(HERE));
      assert.equal(last.cuts.length, 3, when);
      await last.unprotect();
      assert.equal(last.record.disks[0]!.formerPaths, undefined);
      await box.assertGivenBack(when);
      await last.release();
    }
  }
  t.diagnostic(`${interrupted} interruptions; ${known} of the moves had been recorded`);
  assert.ok(interrupted > 10 && known > 1, `${interrupted} interruptions, ${known} recorded`);
});

test('S0.28 a machine whose protection is being ended is not moved', async () => {
  const box = await twoDiskBox();
  let acts = 6;
  for (;;) {
    const { site } = await box.unprotectUntil(acts++);
    assert.ok(site.isDead);
    const next = await box.open();
    if (!next.record.dissolving) continue;
    const place = { sockets: { qmpPath: '/run/other' }, files: {} };
    await assert.rejects(next.move(place), (error) => {
      assert.ok(isFailure(error, 'PROTECTION_MOVE_REFUSED'));
      assert.match(error.message, /the end of its protection/);
      return true;
    });
    return;
  }
});
