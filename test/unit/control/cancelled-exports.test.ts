/** A cancelled export leaves nothing, also where the process that wrote it was killed before it had removed that. */
import assert from 'node:assert/strict';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { DivergedActs } from '../../../src/control/acts/diverged-acts.ts';
import { SeedActs } from '../../../src/control/acts/seed-acts.ts';
import type { JobContext, JobHandler, JobKind } from '../../../src/control/base/jobs.ts';
import { controlFailure } from '../../../src/control/errors.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import type { SeedExportOptions } from '../../../src/replication/index.ts';
import { jobsIn } from '../../support/jobs-by-hand.ts';
import { seedSites } from '../../support/seed-sites.ts';
import { type CleanUp, temporaryDirectory } from '../../support/temporary.ts';

/** The job is cancelled while `work` has come so far, its process is killed, and the next one of the site does with it what it does. */
async function cancelledAndKilled(
  t: CleanUp,
  { kind, path, next }: { readonly kind: JobKind; readonly path: string; readonly next: JobHandler },
  work: (jobId: string) => Promise<void>,
) {
  const { open } = await jobsIn(t);
  const begun = Promise.withResolvers<void>();
  const dead = Promise.withResolvers<void>();
  const dying = async ({ jobId }: JobContext) => {
    await work(jobId);
    begun.resolve();
    await dead.promise;
  };
  const killed = open(undefined, { [kind]: { repeatable: true, run: dying } });
  const { jobId } = killed.jobs.start({ kind, args: { path }, actor: 'operator:test', machineId: 'm' });
  await begun.promise;
  killed.jobs.cancel(jobId);
  const after = open(undefined, { [kind]: next });
  const ended = await after.jobs.endOf(jobId, new AbortController().signal);
  assert.equal(ended?.state, 'cancelled');
  await after.close();
  dead.resolve();
  await killed.close();
}

test('S0.17 of a cancelled export of a branch nothing stays, whatever has become of the branch', async (t) => {
  const path = await temporaryDirectory(t);
  const unasked = () => assert.fail('the branch need not be there any more');
  const { handlers } = new DivergedActs({
    ...{ files: nodeFiles, clock: systemClock, images: { open: unasked }, jobs: unasked },
    failovers: { list: unasked },
    inventory: { find: unasked, replica: unasked },
    diverged: {},
  } as unknown as ConstructorParameters<typeof DivergedActs>[0]);
  await mkdir(join(path, 'export-another.partial'));
  const next = handlers['failover.export'];
  await cancelledAndKilled(t, { kind: 'failover.export', path, next }, async (jobId) => {
    await mkdir(join(path, `export-${jobId}.partial`));
    await writeFile(join(path, `export-${jobId}.partial`, 'disk0.raw'), 'half of it');
  });
  assert.deepEqual(await readdir(path), ['export-another.partial']);
});

test('S0.17 an export of a branch that fails for other reasons leaves nothing of an earlier process either', async (t) => {
  const path = await temporaryDirectory(t);
  const { handlers } = new DivergedActs({
    ...{ files: nodeFiles, diverged: {} },
    inventory: {
      replica: () => {
        throw controlFailure('MACHINE_NO_REPLICA', 'it has gone');
      },
    },
  } as unknown as ConstructorParameters<typeof DivergedActs>[0]);
  await mkdir(join(path, 'export-job.partial'));
  const { signal } = new AbortController();
  const job = {
    jobId: 'job',
    machineId: 'm',
    args: { path, branchId: 'b' },
    signal,
    progress: () => undefined,
  };
  await assert.rejects(handlers['failover.export'].run(job), { code: 'MACHINE_NO_REPLICA' });
  assert.deepEqual(await readdir(path), []);
});

/** A machine whose seed is being written, and what its site does with jobs that write it. */
async function seeding(t: CleanUp) {
  const sites = await seedSites(t);
  const { machine } = await sites.addMachine();
  const { medium } = sites;
  /** What is left when a process ends in the middle. */
  const half = async () => {
    const end = new AbortController();
    const onProgress = () => end.abort(controlFailure('JOB_INTERRUPTED', 'the process ends'));
    const exporting = machine.exportSeed(() => sites.target, medium, { signal: end.signal, onProgress });
    await assert.rejects(exporting, { code: 'JOB_INTERRUPTED' });
    const left = await readdir(medium);
    assert.deepEqual(
      left.map((name) => /\.partial$/.test(name)),
      [true],
    );
    return left;
  };
  const handler = (exportSeed: (o: SeedExportOptions) => Promise<unknown>) =>
    new SeedActs({
      inventory: { home: () => machine },
      machines: { exportSeed: (_machine: unknown, _path: unknown, o: SeedExportOptions) => exportSeed(o) },
    } as unknown as ConstructorParameters<typeof SeedActs>[0]).exporting;
  return { machine, medium, half, handler };
}

test('S0.27 of a cancelled export of a seed nothing stays on the medium', async (t) => {
  const { machine, medium, half, handler } = await seeding(t);
  const next = handler(() => assert.fail('nothing is written any more'));
  await cancelledAndKilled(t, { kind: 'seed.export', path: medium, next }, async () => void (await half()));
  assert.deepEqual(await readdir(medium), []);
  assert.equal(machine.target?.seed?.state, 'wanted');
});

test('S0.27 nor does what an earlier process has written, if the export is cancelled before it comes to that; one that the site goes on with stays', async (t) => {
  const { medium, half, handler } = await seeding(t);
  const left = await half();
  const job = { jobId: 'job', machineId: 'm', args: { path: medium }, progress: () => undefined };
  const endedBy = async (reason?: Error) => {
    const end = new AbortController();
    const waiting = handler(
      ({ signal }) =>
        new Promise((_, reject) => signal!.addEventListener('abort', () => reject(signal!.reason))),
    );
    const ended = waiting.run({ ...job, signal: end.signal });
    end.abort(reason);
    await assert.rejects(ended);
  };
  await endedBy(controlFailure('JOB_INTERRUPTED', 'the site is shutting down'));
  assert.deepEqual(await readdir(medium), left);
  await endedBy();
  assert.deepEqual(await readdir(medium), []);
});
