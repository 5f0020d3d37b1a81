import { copyFile, mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { FailoverReport } from '../../src/failover/index.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { runCommand } from '../../src/lib/processes.ts';
import { pairedSites, resultOf, someonesMachine } from '../../test/support/paired-sites.ts';
import type { CleanUp } from '../../test/support/temporary.ts';
import { atMost, median } from '../support/figures.ts';
import { bootDisks } from './plain-boot.ts';

/** What a failover may add to the boot of the guest, from the command on. */
const OVERHEAD_TARGET_MS = 500;
const BOX = { params: { machine: 'box' } };
const WARMSITE = join(import.meta.dirname, '../../bin/warmsite.mjs');

/**
 * From the moment in which a person has typed `warmsite failover start` until the guest's agent answers, at a site that is served, with
 * everything that it does for that; against plain QEMU on a flat image, in turn.
 */
export async function compareTyped(scope: CleanUp, rounds: number): Promise<void> {
  const { t, directory, homeApi, away, awayApi } = await pairedSites(scope);
  const { lab, attach } = await someonesMachine(t, directory);
  await homeApi.call('vm.add', { body: { attach } });
  await homeApi.call('vm.protect', { ...BOX, body: { every: {} } });
  const begun = await homeApi.call('point.create', { ...BOX, body: { type: 'crash', wait: true } });
  if (!('job' in begun) || !begun.job) throw new Error('no copy was made');
  await resultOf(homeApi, begun.job);
  await lab.stop();
  const { protected: home } = await homeApi.call('vm.show', BOX);
  const flat: { readonly name: string; readonly path: string }[] = [];
  for (const { diskId, chain } of home!.disks) {
    const { path, format } = chain.at(-1)!;
    const to = join(directory, `flat-${diskId}.qcow2`);
    await runCommand('qemu-img', ['convert', '-f', format, '-O', 'qcow2', path, to]);
    flat.push({ name: diskId, path: to });
  }

  const plainMs: number[] = [];
  const typedMs: number[] = [];
  const inside: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const plain = join(directory, 'plain');
    await mkdir(plain);
    for (const { name, path } of flat) await copyFile(path, join(plain, `${name}.qcow2`));
    const disks = flat.map(({ name }) => ({
      name,
      path: join(plain, `${name}.qcow2`),
      format: 'qcow2' as const,
    }));
    plainMs.push(await bootDisks(plain, disks));
    await rm(plain, { recursive: true, force: true });

    const typedAtMs = systemClock.wallMs();
    const { stdout } = await runCommand(WARMSITE, [
      ...['--data', away.dataDirectory, '--json'],
      ...['failover', 'start', 'box', '--confirm-other-side-down'],
    ]);
    const { result: report } = JSON.parse(stdout) as { result: FailoverReport };
    if (report.rtoMs === null) throw new Error(`the guest did not answer: ${stdout}`);
    typedMs.push(report.startedAtMs + report.rtoMs - typedAtMs);
    inside.push(report.rtoMs);
    const params = { machine: 'box', branch: report.branchId! };
    await resultOf(awayApi, await awayApi.call('failover.cleanup', { params }));
  }
  console.table([
    {
      'plain QEMU, ms (median)': Math.round(median(plainMs)),
      'typed, ms (median)': Math.round(median(typedMs)),
      'of it from the begin of its job': Math.round(median(inside)),
      least: Math.round(Math.min(...typedMs)),
      most: Math.round(Math.max(...typedMs)),
    },
  ]);
  const added = median(typedMs.map((ms, round) => ms - plainMs[round]!));
  console.log(
    `typed at a terminal: a failover adds, in seconds, ${atMost(added / 1000, OVERHEAD_TARGET_MS / 1000, 2)}`,
  );
}
