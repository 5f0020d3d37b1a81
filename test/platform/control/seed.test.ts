import assert from 'node:assert/strict';
import { open, readdir, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { systemClock } from '../../../src/lib/clock.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import { systemRandom } from '../../../src/lib/random.ts';
import { retrying } from '../../../src/lib/retry.ts';
import type { TestApi } from '../../support/api.ts';
import { BOX, ended, machineThatIsOff, pairedSites, resultOf } from '../../support/paired-sites.ts';
import type { CleanUp } from '../../support/temporary.ts';

const MIB = 1024 * 1024;
const DISK_BYTES = 64 * MIB;
const BASE_BYTES = 24 * MIB;

/** Two paired sites, a machine of the first that is off, and a medium. */
async function sitesWithMachine(context: CleanUp) {
  const sites = await pairedSites(context);
  const { directory, homeApi } = sites;
  const disk = join(directory, 'disk.raw');
  await writeFile(disk, systemRandom.bytes(BASE_BYTES));
  await truncate(disk, DISK_BYTES);
  const medium = join(directory, 'medium');
  await nodeFiles.makeDirectory(medium);
  const body = machineThatIsOff({ path: disk, sizeBytes: DISK_BYTES, format: 'raw' });
  await homeApi.call('vm.add', { body });
  await homeApi.call('vm.protect', {
    ...BOX,
    body: { every: {}, retention: { types: { crash: 100, app: 0 } }, compression: false, seed: true },
  });
  return { ...sites, medium };
}

async function copy(api: TestApi, pattern: number): Promise<void> {
  const { protected: machine } = await api.call('vm.show', BOX);
  const tip = machine!.disks[0]!.chain.at(-1)!.path;
  // The merge that follows an acknowledgement holds the lock of the file for a moment.
  const backoff = { firstMs: 50, maximumMs: 200, triesMax: 50 };
  const write = ['-f', 'qcow2', '-c', `write -q -P ${pattern} ${pattern * 100}k 20k`, tip];
  await retrying({ clock: systemClock, random: systemRandom }, backoff, () => runCommand('qemu-io', write));
  const created = await api.call('point.create', { ...BOX, body: { type: 'crash', wait: true } });
  assert.ok('job' in created);
  await resultOf(api, created.job);
}

describe('a seed by courier, over the API', { timeout: 180_000 }, () => {
  it('S0.27 five copies cross the wire before the base does; a damaged one is refused, the right one imported, and every point verified', async (t) => {
    const { homeApi, away, awayApi: before, medium } = await sitesWithMachine(t);
    const exported = await homeApi.call('seed.export', { ...BOX, body: { path: medium } });
    assert.ok(Number(((await resultOf(homeApi, exported)) as { bytes: number }).bytes) > BASE_BYTES);
    for (let pattern = 101; pattern <= 105; pattern++) await copy(homeApi, pattern);
    const { protected: protectedView } = await homeApi.call('vm.show', BOX);
    assert.equal(protectedView!.replication!.seed, 'awaited');
    assert.equal(protectedView!.replication!.rpo.actualMs, undefined, 'no RPO is claimed');
    assert.equal(protectedView!.disks[0]!.chain.length, 2, 'the chain at home stays short');

    // What awaits its seed survives a restart, and cannot be used.
    await away.close();
    const awayApi = await away.serve();
    assert.notEqual(awayApi, before);
    // The restarted site listens elsewhere.
    const { peerAddress } = await awayApi.call('site.show');
    await homeApi.call('peer.address', {
      params: { peer: 'away' },
      body: { host: '127.0.0.1', port: peerAddress.port },
    });
    const points = await awayApi.call('point.list', BOX);
    assert.deepEqual(
      points.map(({ state }) => state),
      Array(6).fill('awaiting-seed'),
    );
    const received = points.reduce((sum, point) => sum + (point.receivedBytes ?? 0), 0);
    assert.ok(received < 5 * MIB, `${received} bytes crossed the wire; the base has ${BASE_BYTES}`);
    const { replica } = await awayApi.call('vm.show', BOX);
    assert.deepEqual([replica!.awaitsSeed, replica!.state], [true, 'seeding']);
    assert.equal(replica!.rpo.actualMs, undefined);
    const refused = await ended(awayApi, await awayApi.call('failover.test', { ...BOX, body: {} }));
    assert.equal(refused.failure?.code, 'REPLICA_AWAITING_SEED');
    const start = await awayApi.call('failover.start', { ...BOX, body: { confirmOtherSideDown: true } });
    assert.equal((await ended(awayApi, start)).failure?.code, 'REPLICA_AWAITING_SEED');
    assert.equal((await awayApi.call('vm.show', BOX)).epoch, 1, 'nobody has been fenced off');
    assert.ok((await awayApi.call('alert.list')).some(({ code }) => code === 'REPLICA_AWAITING_SEED'));

    // A medium that was damaged on its way is refused for what it holds, and nothing is lost by it; so is one at another site.
    const [name] = await readdir(medium);
    const seedPath = join(medium, name!);
    const flip = async () => {
      await using file = await open(seedPath, 'r+');
      const byte = Buffer.alloc(1);
      await file.read(byte, 0, 1, BASE_BYTES / 2);
      byte[0]! ^= 1;
      await file.write(byte, 0, 1, BASE_BYTES / 2);
    };
    await flip();
    const bad = await ended(awayApi, await awayApi.call('seed.import', { body: { path: medium } }));
    assert.equal(bad.failure?.code, 'REPLICA_SEED_DAMAGED', JSON.stringify(bad));
    assert.deepEqual(
      (await awayApi.call('point.list', BOX)).map(({ state }) => state),
      Array(6).fill('awaiting-seed'),
    );
    await flip();
    await assert.rejects(homeApi.call('seed.import', { body: { path: medium } }), {
      code: 'REPLICA_SEED_REFUSED',
    });

    const imported = await awayApi.call('seed.import', { body: { path: medium } });
    assert.deepEqual(((await resultOf(awayApi, imported)) as { kind: string }).kind, 'imported');
    const again = await awayApi.call('seed.import', { body: { path: medium } });
    assert.deepEqual(((await resultOf(awayApi, again)) as { kind: string }).kind, 'already');
    const usable = await awayApi.call('point.list', BOX);
    assert.deepEqual(
      usable.map(({ state, pointId }) => [state, pointId]),
      points.map(({ pointId }) => ['verified', pointId]),
    );
    for (const { pointId } of usable) {
      await resultOf(
        awayApi,
        await awayApi.call('point.verify', { params: { machine: 'box', point: pointId } }),
      );
    }
    await copy(homeApi, 106);
    const { protected: whole } = await homeApi.call('vm.show', BOX);
    assert.equal(whole!.replication!.seed, undefined);
    assert.ok(whole!.replication!.rpo.actualMs !== undefined);
    assert.ok(!(await awayApi.call('alert.list')).some(({ code }) => code === 'REPLICA_AWAITING_SEED'));
  });

  it('S0.27 what nobody awaits is refused at once; an export can be cancelled', async (t) => {
    const { homeApi, awayApi, medium } = await sitesWithMachine(t);
    await assert.rejects(awayApi.call('seed.import', { body: { path: medium } }), /there is no/);
    const job = await homeApi.call('seed.export', { ...BOX, body: { path: medium } });
    await homeApi.call('job.cancel', { params: { job: job.jobId } });
    const { state } = await ended(homeApi, job);
    assert.ok(state === 'cancelled' || state === 'done');
    if (state === 'cancelled') assert.deepEqual(await readdir(medium), []);
    await assert.rejects(awayApi.call('seed.import', { body: { path: join(medium, 'none') } }));
  });
});
