/** Three sites in network namespaces of their own, whose cables are pulled: both try everything, and two never run the machine. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { it } from 'node:test';
import type { RouteBody } from '../../../src/api/index.ts';
import type { FailoverReport } from '../../../src/failover/index.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import type { TestApi } from '../../support/api.ts';
import { eventually } from '../../support/eventually.ts';
import { stretchesOf } from '../../support/heard-qemu.ts';
import { lastFirst } from '../../support/last-first.ts';
import { BOX, ended, machineThatIsOff, resultOf } from '../../support/paired-sites.ts';
import { PartitionedSites } from '../../support/partitioned-sites.ts';
import { BY_HAND, DISK_BYTES, verifiedCopy, write } from '../../support/site-of-box.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

const LEASE_MS = 5_000;
const MIB = 1024 * 1024;
const ASK_WITNESS: { params: { machine: string }; body: RouteBody<'failover.start'> } = {
  ...BOX,
  body: { askWitness: true, probes: [] },
};

async function guestAt(api: TestApi): Promise<string | undefined> {
  return (await api.call('vm.show', BOX)).protected!.lease?.guest;
}

it('S0.17 sites whose cables are pulled one by one: the machine runs at one, stands still, or comes up at the other', {
  timeout: 180_000,
}, async (context) => {
  const t = lastFirst(context);
  const directory = await temporaryDirectory(t);
  const net = await PartitionedSites.make(t, ['home', 'away', 'quorum']);
  const home = await net.site('home').serve();
  const away = await net.site('away').serve();
  const quorum = await net.site('quorum').serve();
  await net.pair('home', 'away', [home, away]);
  await net.pair('home', 'quorum', [home, quorum]);
  await net.pair('away', 'quorum', [away, quorum]);
  const disk = join(directory, 'disk.qcow2');
  await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', disk, String(DISK_BYTES)]);
  await write(disk, 1, 0, MIB);
  await home.call('vm.add', {
    body: machineThatIsOff({ path: disk, sizeBytes: DISK_BYTES, format: 'qcow2' }),
  });
  await home.call('vm.protect', { ...BOX, body: { ...BY_HAND, target: 'away' } });
  await verifiedCopy(home);
  await home.call('vm.lease', { ...BOX, body: { witness: 'quorum', leaseMs: LEASE_MS } });
  await home.call('vm.start', BOX);
  await eventually(async () => ((await guestAt(home)) === 'runs' ? true : undefined));

  // No program takes the place of a vote.
  const byProgram = { ...BOX, body: { fence: true } } as const;
  await assert.rejects(away.call('failover.start', byProgram), { code: 'FAILOVER_WITNESS_DECIDES' });
  // The sites do not see each other: the witness decides for the one that runs the machine.
  await net.pull('home', 'away');
  const held = await ended(away, await away.call('failover.start', ASK_WITNESS));
  assert.equal(held.failure?.code, 'LEASE_HELD', JSON.stringify(held));
  assert.equal(await guestAt(home), 'runs');

  // The witness does not see home, which runs by what the recovery site lends.
  await net.mend('home', 'away');
  await eventually(async () => {
    const { protected: atHome } = await home.call('vm.show', BOX);
    return atHome!.lease!.lenders.every(({ lentMs }) => lentMs > 0) ? true : undefined;
  });
  await net.pull('home', 'quorum');
  await eventually(async () => {
    const { protected: atHome } = await home.call('vm.show', BOX);
    const quorumLends = atHome!.lease!.lenders.find(({ role }) => role === 'witness')!.lentMs;
    return quorumLends === 0 ? true : undefined;
  });
  assert.equal(await guestAt(home), 'runs');

  // Home is alone: its guest stands still before it comes up elsewhere.
  await net.pull('home', 'away');
  const asked = await away.call('failover.start', ASK_WITNESS);
  const report = (await resultOf(away, asked)) as FailoverReport;
  assert.equal(report.kind, 'unplanned');
  // What the two machines have told of themselves, by one clock: the one stands still before the other site has the right, and before its own runs.
  const here = await eventually(async () => (await net.qemu('away').machines())[0]);
  const [there, ...more] = await net.qemu('home').machines();
  assert.deepEqual(more, []);
  const { untilMs: stoppedAtMs } = stretchesOf(there!).at(-1)!;
  const fence = report.steps.find(({ name }) => name === 'fence')!;
  const [hadRightAtMs, ranAtMs] = [fence.beganAtMs + fence.durationMs, stretchesOf(here)[0]!.fromMs];
  const told = `stood still at ${stoppedAtMs}, right had at ${hadRightAtMs}, ran here at ${ranAtMs}`;
  context.diagnostic(told);
  assert.ok(stoppedAtMs < hadRightAtMs && hadRightAtMs < ranAtMs, told);
  await eventually(async () => ((await guestAt(home)) === 'stopped' ? true : undefined));
  // Its person tries what there is.
  await home.call('vm.stop', { ...BOX, body: { force: true } });
  await assert.rejects(home.call('vm.start', BOX), { code: 'LEASE_NOT_LENT' });
  // One cable is enough to hear of it: the witness tells that somebody else holds the machine.
  await net.mend('home', 'quorum');
  const refusal = () =>
    home.call('vm.start', BOX).then(
      () => 'started',
      ({ code }: { code: string }) => code,
    );
  await eventually(async () => ((await refusal()) === 'PROTECTION_FENCED' ? true : undefined));
  assert.equal((await home.call('vm.show', BOX)).protected!.heldBy?.how, 'fenced');
});
