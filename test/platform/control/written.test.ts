/** Copies that are made when a guest has written so much: QEMU tells when the file of a tip passes an offset. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { EventHub } from '../../../src/control/base/event-hub.ts';
import { ReplicationLoop } from '../../../src/control/machines/replication-loop.ts';
import { sleep, systemClock } from '../../../src/lib/clock.ts';
import { spaceAt } from '../../../src/lib/host-files.ts';
import { systemRandom } from '../../../src/lib/random.ts';
import type { CopySchedule } from '../../../src/recovery-point/index.ts';
import { monitoredMachine } from '../../support/monitored-machine.ts';

const MIB = 1024 * 1024;

it('S0.8 QEMU tells when as much is written as the policy says, over all disks, again after a restart, and with a disk that comes later', async (t) => {
  const { sites, machine, replica, ...box } = await monitoredMachine(t);
  for (const diskId of ['disk', 'steady']) await box.grow(32 * MIB, diskId);
  const after = (copyType: string, bytes: number): CopySchedule => ({
    ...{ copyType, triggers: [{ kind: 'written', bytes }] },
  });
  await machine.changeProtection({
    schedules: [after('crash', 4 * MIB), after('app', 16 * MIB)],
    retention: { types: { crash: 8, app: 4 } },
  });
  const events = new EventHub();
  const { clock, random, log, files } = { ...sites.protectedTools, clock: systemClock, random: systemRandom };
  const loop = new ReplicationLoop(machine, {
    ...{ clock, random, log, files, events, zones: sites.protectedTools.zones },
    alerts: {
      raise: (key, _severity, raised) => t.diagnostic(`${key}: ${raised.message}`),
      clear: () => undefined,
    },
    audit: { note: () => undefined },
    identities: { look: async () => undefined, forget: () => undefined },
    target: () => sites.target,
    spaceAt,
  });
  t.after(() => loop.stop());
  const next = (change: string) =>
    new Promise<void>((resolve) => {
      const stop = events.listen((event) => {
        if (event.event !== 'point' || event.change !== change) return;
        stop();
        resolve();
      });
    });
  const newest = () => machine.cuts.at(-1)?.ordinal;
  const copied = async (act: () => unknown) => {
    const acknowledged = next('acknowledged');
    const before = systemClock.monotonicMs();
    await act();
    await acknowledged;
    t.diagnostic(
      `${machine.cuts.at(-1)?.copyType} copy arrived after ${Math.round(systemClock.monotonicMs() - before)} ms`,
    );
  };
  const notCopied = async (act: () => Promise<unknown>) => {
    const before = newest();
    await act();
    // What QEMU has told lies before its answer on the same connection; a cut would have begun long before this has passed.
    await machine.running!.disks();
    await sleep(systemClock, 400);
    assert.equal(newest(), before);
  };
  await copied(() => loop.start());

  await notCopied(async () => {
    await box.write(1, 0, 2 * MIB);
    await box.write(2, 0, MIB, 'steady');
    for (const pattern of [3, 4, 5]) await box.write(pattern, 0, 2 * MIB);
  });
  const sums = (await loop.written()).map(({ writtenBytes }) => writtenBytes);
  assert.equal(sums[0], sums[1], 'both begin with the same copy');
  assert.ok(sums[0]! >= 3 * MIB && sums[0]! < 4 * MIB, `${sums[0]} bytes`);
  await copied(() => box.write(6, 8 * MIB, MIB, 'steady'));

  await notCopied(() => box.write(7, 4 * MIB, 2 * MIB));
  await box.switchOff();
  await machine.start();
  await box.listen();
  loop.kick();
  await notCopied(() => box.write(8, 10 * MIB, MIB, 'steady'));
  await copied(() => box.write(9, 12 * MIB, MIB, 'steady'));

  await box.create('late', 32 * MIB);
  await box.plugIn('late', box.pathOf('late'), 32 * MIB);
  await machine.addDisk(await box.plugged('late'));
  await notCopied(() => box.write(10, 0, 8 * MIB, 'late'));
  await copied(() => loop.cutNow('crash'));
  await copied(() => box.write(11, 0, 4 * MIB, 'late'));
  await copied(() => box.write(12, 16 * MIB, 4 * MIB));

  const points = replica().points.map(({ statement }) => statement);
  assert.deepEqual(
    points.map(({ copyType }) => copyType),
    ['app', 'crash', 'crash', 'crash', 'crash', 'app'],
  );
  await box.assertPoint(points.at(-1)!.pointId, box.contents());
});
