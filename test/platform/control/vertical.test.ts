import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { runCommand } from '../../../src/lib/processes.ts';
import type { TestApi } from '../../support/api.ts';
import { TestSite } from '../../support/served-sites.ts';
import { type CleanUp, temporaryDirectory } from '../../support/temporary.ts';

const MIB = 1024 * 1024;
const DISK_BYTES = 32 * MIB;

/** Two sites of this process, paired over the loopback, and a machine of the first that does not run. */
async function twoPairedSites(t: CleanUp) {
  const directory = await temporaryDirectory(t);
  const home = await TestSite.init(t, directory, 'home');
  const away = await TestSite.init(t, directory, 'away');
  const homeApi = await home.serve();
  const awayApi = await away.serve();
  const { token } = await awayApi.call('site.token', { body: { host: '127.0.0.1' } });
  await homeApi.call('site.pair', { body: { token } });
  const disk = join(directory, 'disk.qcow2');
  await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', disk, String(DISK_BYTES)]);
  await write(disk, 1, 0, 4 * MIB);
  await homeApi.call('vm.add', {
    body: {
      configuration: {
        name: 'box',
        uuid: '6f1f2c3e-0d2a-4b5e-8f7a-0123456789ab',
        architecture: 'x86_64',
        chipset: 'q35',
        firmware: 'bios',
        cpus: 1,
        memoryBytes: 64 * MIB,
        disks: [{ diskId: 'disk0', bus: 'virtio-blk', sizeBytes: DISK_BYTES }],
        nics: [],
        guestAgent: false,
      },
      disks: [{ diskId: 'disk0', path: disk, format: 'qcow2' }],
    },
  });
  return { directory, home, away, homeApi, awayApi };
}

/** Writes as the guest would: to the file that the machine would be started from. */
async function write(path: string, pattern: number, offset: number, length: number): Promise<void> {
  await runCommand('qemu-io', ['-f', 'qcow2', '-c', `write -q -P ${pattern} ${offset} ${length}`, path]);
}

async function tipOf(api: TestApi): Promise<string> {
  const { protected: home } = await api.call('vm.show', { params: { machine: 'box' } });
  return home!.disks[0]!.chain.at(-1)!.path;
}

/** Makes a copy and waits until the recovery site has it verified. */
async function verifiedCopy(api: TestApi) {
  const created = await api.call('point.create', {
    params: { machine: 'box' },
    body: { type: 'crash', wait: true },
  });
  assert.ok('job' in created);
  const job = await api.call('job.show', { params: { job: created.job.jobId }, query: { waitMs: '30000' } });
  assert.equal(job.state, 'done', JSON.stringify(job.failure));
  return job.result as { pointId: string; sequence: number };
}

describe('two sites over the API', { timeout: 120_000 }, () => {
  it('S0.1 S0.12 a machine is added, protected, copied; points arrive verified and are the same bytes', async (t) => {
    const { homeApi, awayApi } = await twoPairedSites(t);
    const shown = await homeApi.call('vm.protect', {
      params: { machine: 'box' },
      body: { every: {}, retention: { crash: 3, application: 0 } },
    });
    assert.equal(shown.protected!.protection!.targetName, 'away');
    for (const [index, pattern] of [11, 12, 13, 14, 15].entries()) {
      if (index > 0) await write(await tipOf(homeApi), pattern, index * MIB, MIB);
      const { sequence } = await verifiedCopy(homeApi);
      assert.equal(sequence, index + 1);
    }
    const points = await awayApi.call('point.list', { params: { machine: 'box' } });
    assert.equal(points.at(-1)!.sequence, 5);
    const job = await awayApi.call('point.verify', { params: { machine: 'box', point: 'latest' } });
    const done = await awayApi.call('job.show', { params: { job: job.jobId }, query: { waitMs: '30000' } });
    assert.equal(done.state, 'done', JSON.stringify(done.failure));
  });
});
