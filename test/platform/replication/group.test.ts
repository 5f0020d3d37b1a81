/** One cut over several real machines, judged by one row of records that is striped over all their disks. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { it } from 'node:test';
import { sleep, systemClock } from '../../../src/lib/clock.ts';

import { newId, systemRandom } from '../../../src/lib/random.ts';
import { verifyPoint } from '../../../src/replica/index.ts';
import { cutGroup } from '../../../src/replication/index.ts';
import { inGuest, type LabSites, labSites, sendAll } from '../../support/lab-sites.ts';
import { sized } from '../../support/size.ts';
import { StripedLedger, stripedLedgerAt, stripeScript } from '../../support/striped-ledger.ts';

const MACHINES = 3;
/** Guests without KVM on a busy host; the limit that is promised is held by the unit tests. */
const LIMIT_MS = 10_000;

it('S0.28 the disks of several machines are cut at one instant, under a writer over all of them', {
  timeout: 600_000,
}, async (t) => {
  const cuts = sized({ what: 'S0.28: cuts of a group', normal: 3, full: 40 });
  const labs: LabSites[] = [];
  for (let machine = 0; machine < MACHINES; machine++) labs.push(await labSites(t));
  await Promise.all(
    labs.map(({ machine }, index) =>
      inGuest(machine.record.sockets.agentPath!, stripeScript(index, MACHINES)),
    ),
  );
  const ledger = await StripedLedger.start(
    t,
    labs.map(({ sites }) => join(sites.directory, 'ledger')),
  );
  const { protectedTools: tools } = labs[0]!.sites;
  const group = { groupId: newId(systemClock, systemRandom), name: 'shop' };
  const pauses: number[] = [];
  let before = 0;
  for (let count = 0; count < cuts; count++) {
    while (ledger.last < before + 20) await sleep(systemClock, 10);
    const promised = ledger.last;
    const copyType = count % 4 === 2 ? 'app' : 'crash';
    const outcome = await cutGroup(tools, {
      ...{ group, limitMs: LIMIT_MS },
      members: labs.map(({ machine }) => ({
        machineId: machine.record.machineId,
        name: machine.record.name,
        cut: (together) => machine.cut(copyType, together),
      })),
    });
    const written = ledger.last + 1;
    assert.equal(outcome.apart, undefined);
    for (const { machine, sites } of labs) await sendAll(machine, sites.target);
    const points = labs.map(({ replica }) => replica().newest!);
    for (const { statement } of points) {
      assert.deepEqual(statement.group, points[0]!.statement.group);
      assert.equal(statement.group!.pauseMs, outcome.pauseMs);
      assert.ok(statement.group!.members.some(({ pointId }) => pointId === statement.pointId));
      assert.equal(statement.consistency, copyType === 'app' ? 'application' : 'crash', statement.degraded);
      assert.ok(statement.pauseMs > 0 && statement.pauseMs <= outcome.pauseMs);
    }
    const chains = labs.map(
      ({ replica }, index) =>
        (disk: string) =>
          replica().chain(points[index]!.statement.pointId, disk),
    );
    const check = await stripedLedgerAt(tools.images, chains);
    assert.ok(check.contiguous, JSON.stringify(check));
    assert.ok(check.last >= promised && check.last <= written, `${promised} ${check.last} ${written}`);
    before = check.last;
    pauses.push(Math.round(outcome.pauseMs));
  }
  await ledger.stop();
  for (const { replica, sites } of labs) {
    await verifyPoint(sites.replicaTools, replica(), replica().newest!.statement.pointId);
  }
  t.diagnostic(`${before} records over ${MACHINES} machines; pauses of ${pauses.join(', ')} ms`);
});
