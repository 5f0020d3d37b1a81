/** Merges at the recovery site that cannot be ended: they must keep no point from a recovery. */
import assert from 'node:assert/strict';
import { cp } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { type FileHandle, type FileSystem, fileFailure } from '../../../src/lib/files.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import { type Replica, Replicas, type ReplicaTools, verifyPoint } from '../../../src/replica/index.ts';
import { BY_HAND, copyAndSend } from '../../support/lab-sites.ts';
import { sized, sizedLimitMs } from '../../support/size.ts';
import { twoSites } from '../../support/two-sites.ts';

const MIB = 1024 ** 2;
const POINTS = 5;
const KEEP_TWO = { types: { crash: 2, app: 0 } };

const LIMIT = { timeout: sizedLimitMs({ normal: 300_000, full: 14_400_000 }) };

/** Files and images whose changes below `disks`, `points` and `intents` fail from the n-th on. */
function failing(tools: ReplicaTools) {
  const state = { allowed: Number.POSITIVE_INFINITY, made: 0 };
  const change = (path: string) => {
    if (!/\/(disks|points|intents)\b/.test(path)) return;
    state.made += 1;
    if (state.made > state.allowed)
      throw fileFailure('write', path, Object.assign(new Error('no space left'), { code: 'ENOSPC' }));
  };
  const changing = <A extends [string, ...unknown[]], R>(act: (...args: A) => Promise<R>) => {
    return async (...args: A): Promise<R> => {
      change(args[0]);
      return act(...args);
    };
  };
  const handle = (path: string, inner: FileHandle): FileHandle => ({
    ...{ read: inner.read.bind(inner), sizeBytes: inner.sizeBytes.bind(inner) },
    ...{ truncate: inner.truncate.bind(inner), close: inner.close.bind(inner) },
    write: (data, position) => changing(() => inner.write(data, position))(path),
    writeAll: (buffers, position) => changing(() => inner.writeAll(buffers, position))(path),
    writeDirect: (data, position) => changing(() => inner.writeDirect(data, position))(path),
    sync: () => changing(() => inner.sync())(path),
  });
  const files: FileSystem = {
    ...nodeFiles,
    open: async (path, how) => handle(path, await nodeFiles.open(path, how)),
    rename: changing(nodeFiles.rename),
    remove: changing(nodeFiles.remove),
    setReadOnly: changing(nodeFiles.setReadOnly),
  };
  const { images } = tools;
  const failingTools: ReplicaTools = {
    ...tools,
    files,
    images: {
      open: images.open.bind(images),
      reparent: images.reparent.bind(images),
      grow: images.grow.bind(images),
      commit: async (chain) => {
        change(chain.at(-2)!.path);
        await images.commit(chain);
      },
    },
  };
  return { state, tools: failingTools };
}

for (const kind of ['fold', 'middle'] as const) {
  test(
    `S0.15 while a merge (${kind}) cannot be ended, every point that stays can be read, also after a restart`,
    LIMIT,
    async (t) => {
      const sites = await twoSites(t);
      const disks = ['a', 'b'].map((diskId) => ({
        ...{ diskId, path: join(sites.directory, `${diskId}.qcow2`), sizeBytes: 2 * MIB },
      }));
      for (const { path, sizeBytes } of disks)
        await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', path, String(sizeBytes)]);
      const machine = await sites.addMachine(disks);
      await machine.protect({ ...BY_HAND, targetSiteId: sites.target.siteId });
      for (let point = 1; point <= POINTS; point++) {
        for (const { diskId } of disks) {
          const tip = machine.chain(diskId).at(-1)!;
          // Each point writes half over what the one before wrote.
          const write = `write -q -P ${point} ${point * 128}k 256k`;
          await runCommand('qemu-io', ['-f', tip.format, '-c', write, tip.path]);
        }
        await copyAndSend(machine, sites.target);
      }
      const original = join(sites.directory, 'r');
      const oldest = sites.replicas.list()[0]!.points[0]!.statement.pointId;
      const isProven = (pointId: string) => kind === 'middle' && pointId === oldest;
      const expected = kind === 'middle' ? 3 : 2;
      const allWhole = async (replica: Replica) => {
        for (const { statement } of replica.points)
          await verifyPoint(sites.replicaTools, replica, statement.pointId);
      };
      const copyOf = async (name: string) => {
        const directory = join(sites.directory, name);
        await cp(original, directory, { recursive: true });
        return directory;
      };

      // How many changes the whole merge makes; then some of them are made the first that fails.
      const whole = failing(sites.replicaTools);
      const [merged] = (await Replicas.open(whole.tools, await copyOf('whole'))).list();
      whole.state.made = 0;
      await merged!.retire(KEEP_TWO, isProven);
      assert.equal(merged!.points.length, expected);
      const total = whole.state.made;
      const tries = sized({ what: `S0.15: acts of a ${kind} that fail`, normal: 4, full: total });
      for (let attempt = 0; attempt < tries; attempt++) {
        const allowed = Math.floor((attempt * total) / tries);
        const { state, tools } = failing(sites.replicaTools);
        const directory = await copyOf(`${kind}-${attempt}`);
        const [replica] = (await Replicas.open(tools, directory)).list();
        Object.assign(state, { made: 0, allowed });
        await assert.rejects(replica!.retire(KEEP_TWO, isProven), { code: 'DISK_FULL' });
        await allWhole(replica!);

        Object.assign(state, { made: 0, allowed: 0 });
        const again = await Replicas.open(tools, directory);
        assert.deepEqual(again.broken, [], `it opens when change ${allowed} of ${total} has failed`);
        const [reopened] = again.list();
        assert.ok(reopened!.points.length >= expected);
        await allWhole(reopened!);

        state.allowed = Number.POSITIVE_INFINITY;
        await reopened!.retire(KEEP_TWO, isProven);
        assert.equal(reopened!.points.length, expected);
        await allWhole(reopened!);
        await replica!.retire(KEEP_TWO, isProven);
        assert.equal(replica!.points.length, expected);
        await nodeFiles.removeDirectory(directory);
      }
      t.diagnostic(`${tries} of ${total} changes failed`);
    },
  );
}
