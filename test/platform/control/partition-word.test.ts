/** Two sites without a witness, in network namespaces of their own: their cable is pulled, and a person seizes what still runs. Both write; one is left. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { buildLabGuest, copyLabGuest, LedgerPort } from '../../../lab/index.ts';
import type { RouteBody } from '../../../src/api/index.ts';
import type { FailoverReport } from '../../../src/failover/index.ts';
import { processesOfRun, QemuImages } from '../../../src/hypervisor/index.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import type { TestApi } from '../../support/api.ts';
import { eventually } from '../../support/eventually.ts';
import { stretchesOf } from '../../support/heard-qemu.ts';
import { assertLedger } from '../../support/lab-sites.ts';
import { lastFirst } from '../../support/last-first.ts';
import { BOX, ended, resultOf } from '../../support/paired-sites.ts';
import { PartitionedSites } from '../../support/partitioned-sites.ts';
import { BY_HAND, heldAt, verifiedCopy } from '../../support/site-of-box.ts';
import { chainInHeaders } from '../../support/sound-layers.ts';
import { type CleanUp, temporaryDirectory } from '../../support/temporary.ts';
import { labDisks } from '../../support/two-sites.ts';

const NOW = { ...BOX, body: {} } as const;
const DISKS = { system: 'disk0', data: 'disk1' } as const;

/** The lab guest as a machine that the site starts itself. */
async function labMachine(directory: string): Promise<RouteBody<'vm.add'>> {
  const disks = labDisks(await copyLabGuest(await buildLabGuest(), directory));
  const named = disks.map(({ path, sizeBytes }, index) => ({ diskId: `disk${index}`, path, sizeBytes }));
  return {
    configuration: {
      ...{ name: 'box', uuid: '6f1f2c3e-0d2a-4b5e-8f7a-0123456789ab', architecture: 'x86_64' },
      ...{ chipset: 'q35', firmware: 'bios', cpus: 1, memoryBytes: 256 * 1024 * 1024 },
      disks: named.map(({ diskId, sizeBytes }) => ({ diskId, bus: 'virtio-blk', sizeBytes })),
      ...{ nics: [], guestAgent: true },
    },
    disks: named.map(({ diskId, path }) => ({ diskId, path, format: 'qcow2' })),
  };
}

/** The ledger of a guest that a site runs, by the directory that its machine has there. */
async function ledgerAt(t: CleanUp, runDirectory: string): Promise<LedgerPort> {
  const path = join(runDirectory, 'ledger');
  await eventually(async () => (existsSync(path) ? true : undefined));
  const ledger = await LedgerPort.connect({ path, clock: systemClock });
  t.after(() => ledger.close());
  return ledger;
}

/** With what code something is refused, whether at once or by the job that it begins; «done» if it is not. */
async function refusalOf(api: TestApi, asked: Promise<unknown>): Promise<string> {
  try {
    const answer = await asked;
    const isJob = typeof answer === 'object' && answer !== null && 'jobId' in answer;
    const job = isJob ? await ended(api, answer as Parameters<typeof ended>[1]) : undefined;
    return job?.failure?.code ?? 'done';
  } catch (error) {
    return (error as { code?: string }).code ?? String(error);
  }
}

type Attempt = readonly [what: string, answer: string, asked: () => Promise<unknown>];

/** All by which a person could try to have the machine run at the site that has lost it; «done» are those of which nothing comes. */
function attemptsAt(api: TestApi): readonly Attempt[] {
  return [
    ['vm start', 'PROTECTION_FENCED', () => api.call('vm.start', BOX)],
    [
      'point create',
      'PROTECTION_FENCED',
      () => api.call('point.create', { ...BOX, body: { type: 'crash' } }),
    ],
    [
      'vm protect',
      'PROTECTION_EXISTS',
      () => api.call('vm.protect', { ...BOX, body: { ...BY_HAND, target: 'away' } }),
    ],
    ['vm unprotect', 'PROTECTION_FENCED', () => api.call('vm.unprotect', NOW)],
    [
      'vm unprotect --keep-origin',
      'PROTECTION_FENCED',
      () => api.call('vm.unprotect', { ...BOX, body: { keepOrigin: true } }),
    ],
    ['vm lease', 'LEASE_IMPOSSIBLE', () => api.call('vm.lease', { ...BOX, body: { witness: 'away' } })],
    ['vm lease --off', 'done', () => api.call('vm.lease.end', NOW)],
    ['failover cede', 'PROTECTION_FENCED', () => api.call('failover.cede', NOW)],
    ['failover take', 'MACHINE_NO_REPLICA', () => api.call('failover.take', NOW)],
    [
      'failover start',
      'MACHINE_NO_REPLICA',
      () => api.call('failover.start', { ...BOX, body: { confirmOtherSideDown: true } }),
    ],
    ['failover undo', 'MACHINE_NO_REPLICA', () => api.call('failover.undo', NOW)],
    ['failover adopt', 'MACHINE_NO_REPLICA', () => api.call('failover.adopt', NOW)],
    ['failover withdraw', 'MACHINE_TAKEN', () => api.call('failover.withdraw', NOW)],
    ['vm remove', 'MACHINE_STILL_PROTECTED', () => api.call('vm.remove', BOX)],
    ['vm stop', 'done', () => api.call('vm.stop', { ...BOX, body: { force: true } })],
    ['vm start once more', 'PROTECTION_FENCED', () => api.call('vm.start', BOX)],
  ];
}

it('S0.17 without a witness: refused without a word, both run by one that is wrong, and one is left when they can talk, with nothing lost of either', {
  timeout: 420_000,
}, async (context) => {
  const t = lastFirst(context);
  const directory = await temporaryDirectory(t);
  const net = await PartitionedSites.make(t, ['home', 'away']);
  const home = await net.site('home').serve();
  const away = await net.site('away').serve();
  await net.pair('home', 'away', [home, away]);
  await home.call('vm.add', { body: await labMachine(directory) });
  await home.call('vm.protect', { ...BOX, body: { ...BY_HAND, target: 'away' } });
  await home.call('vm.start', BOX);
  const { machineId } = await home.call('vm.show', BOX);
  const runAtHome = join(net.site('home').dataDirectory, 'run', machineId);
  const atHome = await ledgerAt(t, runAtHome);
  // What is durable in the guest before the copy begins is what the other site acknowledges with it.
  const acknowledged = (await atHome.reached(20, 180_000)).seq;
  const { pointId } = await verifiedCopy(home);

  await net.pull('home', 'away');
  const refused = (body: RouteBody<'failover.start'>) =>
    refusalOf(away, away.call('failover.start', { ...BOX, body }));
  await assert.rejects(away.call('failover.start', NOW), {
    code: 'FAILOVER_UNCONFIRMED',
    message: /both may run/,
    hint: /two running copies diverge/,
  });
  assert.deepEqual(
    [await refused({ fence: true }), await refused({ askWitness: true })],
    ['FAILOVER_NO_FENCING', 'LEASE_UNKNOWN'],
  );
  assert.equal(await refusalOf(away, away.call('failover.take', NOW)), 'FAILOVER_NOT_OFFERED');
  assert.deepEqual(await away.call('failover.list', BOX), []);

  // Somebody gives his word for what is not so.
  const begun = await away.call('failover.start', { ...BOX, body: { confirmOtherSideDown: true } });
  const report = (await resultOf(away, begun)) as FailoverReport;
  assert.deepEqual([report.verdict, report.epoch], ['passed', 2], JSON.stringify(report.attempts));
  assert.ok(
    report.warnings.some((said) => /still runs at the other site, both copies take writes/.test(said)),
  );
  const { entries } = await away.call('audit.list', { query: {} });
  const word = entries.find(({ act, phase }) => act === 'failover.start' && phase === 'intent')!;
  assert.deepEqual([word.actor, word.details.confirmOtherSideDown], [begun.actor, true]);

  const runAway = join(net.site('away').dataDirectory, 'run', report.branchId!);
  const atAway = await ledgerAt(t, runAway);
  const seized = (await atAway.next()).seq;
  // Both write, each on and on.
  const apart = (await atHome.next()).seq;
  assert.ok((await atAway.next()).seq > seized);
  assert.equal(await refused({ confirmOtherSideDown: true }), 'FAILOVER_RUNS_ALREADY');

  // They can talk: a copy is tried, by a schedule or a person, and its site hears who holds the machine.
  await net.mend('home', 'away');
  await eventually(async () => {
    await Promise.allSettled([home.call('point.create', { ...BOX, body: { type: 'crash' } })]);
    return (await heldAt(home)) === 'fenced' ? true : undefined;
  });
  await eventually(async () => ((await processesOfRun(runAtHome)).length === 0 ? true : undefined));
  const atEnd = atHome.last!.seq;
  assert.ok(atEnd >= apart);
  for (const lives of ['its first', 'another']) {
    const api = lives === 'its first' ? home : await net.site('home').serve();
    for (const [what, answer, asked] of attemptsAt(api)) {
      assert.equal(await refusalOf(api, asked()), answer, `${lives} process, ${what}`);
      assert.deepEqual([await processesOfRun(runAtHome), await heldAt(api)], [[], 'fenced'], what);
    }
    assert.equal(await heldAt(api), 'fenced');
    await net.site('home').end('SIGKILL');
  }
  await atAway.next();
  assert.equal((await processesOfRun(runAway)).length, 1, 'the other one runs on');

  // By the clock of the host: both ran by the word of a person, and the one that lost ended once and for all.
  const [there, ...later] = await net.qemu('home').machines();
  const [here] = await net.qemu('away').machines();
  assert.deepEqual(later, [], 'no machine was started there again');
  const [ranHere, ranThere] = [stretchesOf(here!), stretchesOf(there!)];
  assert.ok(ranHere[0]!.fromMs < ranThere.at(-1)!.untilMs, 'both ran');
  assert.ok(ranThere.at(-1)!.untilMs < Number.POSITIVE_INFINITY, 'it has ended');

  // All of both is there: what was acknowledged and what was written after it here, and what was written there by who had lost it.
  const promised = atAway.last!.seq;
  const branch = { params: { machine: 'box', branch: report.branchId! } };
  await resultOf(away, await away.call('failover.stop', { ...branch, body: {} }));
  const images = new QemuImages({ clock: systemClock });
  const replica = join(net.site('away').dataDirectory, 'replicas', machineId);
  const chainsOf = async (top: (disk: string) => string) => ({
    system: await chainInHeaders(top(DISKS.system)),
    data: await chainInHeaders(top(DISKS.data)),
  });
  const points = await chainsOf((disk) => join(replica, 'disks', disk, `${pointId}.qcow2`));
  assert.equal(report.point.pointId, pointId);
  const atPoint = await assertLedger(images, (disk) => points[disk], acknowledged);
  const branches = await chainsOf((disk) => join(replica, 'branches', report.branchId!, `${disk}.qcow2`));
  const atStop = await assertLedger(images, (disk) => branches[disk], promised);
  assert.ok(
    atPoint < seized && seized <= atStop,
    `${atPoint} at the point, ${seized} after it, ${atStop} last`,
  );
  const last = await net.site('home').serve();
  const { protected: kept } = await last.call('vm.show', BOX);
  const keptAt = await assertLedger(
    images,
    (disk) => kept!.disks.find(({ diskId }) => diskId === DISKS[disk])!.chain,
    atEnd,
  );
  assert.ok(keptAt > atPoint, 'what it wrote apart is there');
});
