/** Machines that start from their CDs, at home and at the recovery site, and from their disks where the CD is not. */
import assert from 'node:assert/strict';
import { rename, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { describe, it } from 'node:test';
import type { FailoverReport } from '../../../src/failover/index.ts';
import { serialLineMatching } from '../../../src/failover/serial-log.ts';
import { systemClock, withTimeout } from '../../../src/lib/clock.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import type { TestApi } from '../../support/api.ts';
import { bootableCd, bootSector } from '../../support/bootable-media.ts';
import { BOX, pairedSites, resultOf } from '../../support/paired-sites.ts';
import { BY_HAND, verifiedCopy } from '../../support/site-of-box.ts';
import { EMPTY_MACHINE, socketListens, startedProcess } from '../../support/started.ts';
import type { CleanUp } from '../../support/temporary.ts';
import { run as cli } from '../../unit/cli/fake-world.ts';

const MIB = 1024 * 1024;
const LIMIT_MS = 60_000;
const FROM_CD = '^started from the CD: written at home$';
const FROM_DISK = '^started from the disk: written at home$';

/** Paired sites, and files that firmware starts from. */
async function sitesWithMedia(context: CleanUp) {
  const sites = await pairedSites(context);
  const [disk, iso] = [join(sites.directory, 'disk.raw'), join(sites.directory, 'live.iso')];
  await writeFile(disk, bootSector('written at home'));
  await runCommand('truncate', ['-s', String(4 * MIB), disk]);
  await writeFile(iso, bootableCd());
  const here = { environment: { ...process.env, WARMSITE_DATA: sites.home.dataDirectory } };
  const added = async (...options: string[]) => {
    const { exitCode, messages } = await cli(['vm', 'add', '--name', 'box', ...options], here);
    assert.equal(exitCode, 0, messages);
    await sites.homeApi.call('vm.protect', { ...BOX, body: BY_HAND });
    await verifiedCopy(sites.homeApi);
  };
  return { ...sites, disk, iso, added };
}

async function says(serialPath: string, pattern: string): Promise<void> {
  const late = () => new Error(`nothing on the serial console matches ${pattern}`);
  const read = (signal: AbortSignal) => serialLineMatching(serialPath, new RegExp(pattern), signal);
  await withTimeout(systemClock, LIMIT_MS, read, late);
}

async function reportOf(api: TestApi, act: 'test' | 'start', pattern: string): Promise<FailoverReport> {
  const probes = [{ kind: 'serial' as const, pattern, limitMs: LIMIT_MS }];
  const begun =
    act === 'test'
      ? await api.call('failover.test', { ...BOX, body: { probes } })
      : await api.call('failover.start', { ...BOX, body: { probes, confirmOtherSideDown: true } });
  const report = (await resultOf(api, begun)) as FailoverReport;
  assert.equal(report.verdict, 'passed', JSON.stringify(report.attempts));
  return report;
}

describe('a machine with a CD', { timeout: 240_000 }, () => {
  for (const chipset of ['q35', 'pc']) {
    it(`F8 starts from it at the recovery site as it did at home, and from its disk where the CD is not (${chipset})`, async (context) => {
      const { home, homeApi, awayApi, disk, iso, added } = await sitesWithMedia(context);
      await added(
        ...['--memory', '64M', '--chipset', chipset, '--no-guest-agent'],
        ...['--disk', `root=${disk}`, '--cd', `live=${iso}`, '--boot', 'live,root'],
      );
      await homeApi.call('vm.start', BOX);
      const { protected: atHome } = await homeApi.call('vm.show', BOX);
      await says(join(dirname(atHome!.qmpPath), 'serial.log'), FROM_CD);
      await homeApi.call('vm.stop', { ...BOX, body: { force: true } });

      const test = await reportOf(awayApi, 'test', FROM_CD);
      assert.doesNotMatch(test.warnings.join(), /is not here/);
      // It is not copied: where it is not, the next in turn is what it starts from, and people are told.
      await rename(iso, `${iso}.elsewhere`);
      const { warnings } = await reportOf(awayApi, 'test', FROM_DISK);
      assert.match(warnings.join(), /live\.iso .* is not here, and its drive would be empty/);
      await rename(`${iso}.elsewhere`, iso);

      await home.close();
      await reportOf(awayApi, 'start', FROM_CD);
      const [branch] = await awayApi.call('failover.list', BOX);
      assert.ok(branch!.running);
    });
  }

  it('F8 starts from it at the recovery site when somebody else had started it so, by letters', async (context) => {
    const { t, directory, awayApi, disk, iso, added } = await sitesWithMedia(context);
    const [qmp, serial] = [join(directory, 'box.qmp'), join(directory, 'box.serial')];
    await writeFile(serial, '');
    const machine = await startedProcess(t, 'qemu-system-x86_64', [
      ...EMPTY_MACHINE,
      ...['-qmp', `unix:${qmp},server=on,wait=off`, '-serial', `file:${serial}`, '-boot', 'order=dc'],
      ...['-drive', `if=none,id=root,format=raw,file=${disk}`, '-device', 'virtio-blk-pci,drive=root'],
      ...['-drive', `if=none,id=live,media=cdrom,readonly=on,format=raw,file=${iso}`],
      ...['-device', 'ide-cd,drive=live'],
    ]);
    await socketListens(qmp);
    await says(serial, FROM_CD);
    await added('--attach', qmp);
    machine.kill('SIGKILL');
    await reportOf(awayApi, 'start', FROM_CD);
  });
});
