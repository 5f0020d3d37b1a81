import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { LabMachine } from '../../lab/index.ts';
import type { JobView, RouteBody } from '../../src/api/index.ts';
import type { NicConfiguration } from '../../src/hypervisor/index.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { runCommand } from '../../src/lib/processes.ts';
import { systemRandom } from '../../src/lib/random.ts';
import { retrying } from '../../src/lib/retry.ts';
import type { TestApi } from './api.ts';
import { startBootedLabMachine } from './booted-guest.ts';
import { lastFirst } from './last-first.ts';
import { clockAheadBy, TestSite } from './served-sites.ts';
import { type CleanUp, temporaryDirectory } from './temporary.ts';

/**
 * Two sites of this process, served and paired over the loopback: machines of `home` can be protected to `away`. The clock of
 * `home` is ahead by `aheadMs`. `prepare` may mount what their directories of these names are to lie on.
 */
export async function pairedSites(
  context: CleanUp,
  {
    aheadMs = 0,
    prepare,
  }: { aheadMs?: number; prepare?: (t: CleanUp, directory: string) => Promise<void> } = {},
) {
  const t = lastFirst(context);
  const directory = await temporaryDirectory(t);
  await prepare?.(t, directory);
  const home = await TestSite.init(t, directory, 'home', clockAheadBy(aheadMs));
  const away = await TestSite.init(t, directory, 'away');
  const homeApi = await home.serve();
  const awayApi = await away.serve();
  await pair(homeApi, awayApi);
  return { t, directory, home, away, homeApi, awayApi };
}

/** Pairs two served sites as their operators would: with a token of the one that takes in. */
export async function pair(api: TestApi, target: TestApi): Promise<void> {
  const { token } = await target.call('site.token', { body: { host: '127.0.0.1' } });
  await api.call('site.pair', { body: { token, host: '127.0.0.1' } });
}

/** The job as soon as it has ended, in whatever way. */
export async function ended(api: TestApi, { jobId }: Pick<JobView, 'jobId'>): Promise<JobView> {
  for (;;) {
    const job = await api.call('job.show', { params: { job: jobId }, query: { waitMs: '60000' } });
    if (job.state !== 'running' && job.state !== 'queued') return job;
  }
}

/** What the job came to; fails when it failed. */
export async function resultOf(api: TestApi, begun: JobView): Promise<unknown> {
  const { state, failure, result } = await ended(api, begun);
  assert.equal(state, 'done', JSON.stringify(failure));
  return result;
}

/** The machine that the makers here add, as routes name it. */
export const BOX = { params: { machine: 'box' } };

/** The request that adds «box», a machine of one disk which does not run. */
export function machineThatIsOff(
  disk: {
    readonly path: string;
    readonly sizeBytes: number;
    readonly format: 'qcow2' | 'raw';
  },
  nics: readonly NicConfiguration[] = [],
): RouteBody<'vm.add'> {
  const { path, sizeBytes, format } = disk;
  return {
    configuration: {
      name: 'box',
      uuid: '6f1f2c3e-0d2a-4b5e-8f7a-0123456789ab',
      architecture: 'x86_64',
      chipset: 'q35',
      firmware: 'bios',
      cpus: 1,
      memoryBytes: 64 * 1024 * 1024,
      disks: [{ diskId: 'disk0', bus: 'virtio-blk', sizeBytes }],
      nics: [...nics],
      guestAgent: false,
    },
    disks: [{ diskId: 'disk0', path, format }],
  };
}

/** «box», which is off, is written to at a place of its own, and copied; the first site to have the copy has verified it on return. */
export async function copy(api: TestApi, round: number): Promise<void> {
  const { protected: machine } = await api.call('vm.show', BOX);
  const { path, format } = machine!.disks[0]!.chain.at(-1)!;
  // The merge that follows an acknowledgement, or the sending to the other site, holds the lock of the file for a moment.
  const backoff = { firstMs: 50, maximumMs: 200, triesMax: 100 };
  const write = ['-f', format, '-c', `write -q -P ${round} ${(round % 7) * 900}k 20k`, path];
  await retrying({ clock: systemClock, random: systemRandom }, backoff, () => runCommand('qemu-io', write));
  const created = await api.call('point.create', { ...BOX, body: { type: 'crash', wait: true } });
  assert.ok('job' in created);
  await resultOf(api, created.job);
}

/** A lab machine whose agent answers and that runs until the test ends, as one that somebody else has started. */
export async function someonesMachine(
  t: CleanUp,
  directory: string,
  name = 'box',
): Promise<{
  readonly lab: LabMachine;
  /** What `vm add` takes to attach to it. */
  readonly attach: { readonly name: string; readonly qmpPath: string; readonly agentPath: string };
}> {
  const ownDirectory = join(directory, `lab-${name}`);
  await mkdir(ownDirectory);
  const lab = await startBootedLabMachine(ownDirectory);
  t.after(() => lab.stop());
  return { lab, attach: { name, qmpPath: lab.qmpPath, agentPath: lab.agentPath } };
}
