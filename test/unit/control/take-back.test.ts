import assert from 'node:assert/strict';
import { test } from 'node:test';
import { takeBack } from '../../../src/control/acts/take-back.ts';
import { controlFailure } from '../../../src/control/errors.ts';
import { checkNotOutdated, type Found } from '../../../src/control/inventory/inventory.ts';
import { failuresOf, isFailure, libFailure } from '../../../src/lib/errors.ts';
import {
  afterHearing,
  afterWithdrawal,
  type Claim,
  type Tenure,
  withdrawalOf,
} from '../../../src/recovery-point/index.ts';
import { REPLICA_ERRORS } from '../../../src/replica/index.ts';
import type { MachineRecord, RightAnswer, RightsTarget } from '../../../src/replication/index.ts';

const replicaFailure = failuresOf(REPLICA_ERRORS);

const HOME = 'home';
const OWN: Claim = { epoch: 1, siteId: HOME };

/** A machine at home here, with targets that stand where they are said to stand; one without a tenure is silent. */
function protectedTo(sites: Readonly<Record<string, Tenure | 'removed' | undefined>>) {
  let tenure: Tenure = { state: 'holds', claim: OWN };
  const standing = new Map(Object.entries(sites));
  const asked: string[] = [];
  const machine = {
    running: undefined,
    record: { machineId: 'm', name: 'box' } as MachineRecord,
    targets: Object.keys(sites).map((siteId) => ({ siteId })),
    right: {
      get tenure() {
        return tenure;
      },
      hear: async (claim: Claim) => {
        tenure = afterHearing(tenure, HOME, claim);
        return tenure;
      },
      settle: async () => undefined,
      withdrawal: () => {
        const withdrawal = withdrawalOf(tenure, HOME);
        if (!withdrawal) throw controlFailure('MACHINE_UNSETTLED', 'it is held here');
        return { withdrawal, siteId: tenure.claim.siteId };
      },
    },
  };
  const ask = async (siteId: string, call: (rights: RightsTarget) => Promise<RightAnswer>) => {
    const answered = (change: (before: Tenure) => Tenure): RightAnswer => {
      const before = standing.get(siteId);
      if (!before) throw controlFailure('SITE_PEER_UNKNOWN', `${siteId} is silent`);
      if (before === 'removed') throw replicaFailure('REPLICA_UNKNOWN', `${siteId} has no replica of it`);
      const after = change(before);
      standing.set(siteId, after);
      return { claim: after.claim, state: after.state };
    };
    return call({
      claim: async (_machineId, claim) => {
        asked.push(siteId);
        return answered((before) => afterHearing(before, siteId, claim));
      },
      withdraw: async (_machineId, withdrawal) =>
        answered((before) => afterWithdrawal(before, siteId, withdrawal)),
      offer: () => assert.fail('nothing is offered'),
    });
  };
  const tools = { ask, checkNotOutdated: () => undefined };
  return { machine, tools, asked, tenure: () => tenure };
}

const FOLLOWS: Tenure = { state: 'follows', claim: OWN };
const GIVEN_UP: Tenure = { state: 'follows', claim: { epoch: 2, siteId: 'second' } };

test('F4 a home that has heard of no failover asks each of its targets for what one of them has given up', async () => {
  for (const first of [FOLLOWS, undefined]) {
    const { machine, tools, asked, tenure } = protectedTo({ first, second: GIVEN_UP });
    await takeBack(machine, tools);
    assert.deepEqual(asked, ['first', 'second']);
    assert.deepEqual(tenure(), { state: 'holds', claim: { epoch: 3, siteId: HOME } });
  }
});

test('F4 a home that asks for what was never brought up is told so, or which target is silent', async () => {
  const answered = protectedTo({ first: FOLLOWS, second: FOLLOWS });
  await assert.rejects(takeBack(answered.machine, answered.tools), { code: 'MACHINE_UNSETTLED' });
  const silent = protectedTo({ first: FOLLOWS, second: undefined });
  await assert.rejects(
    takeBack(silent.machine, silent.tools),
    (error) => isFailure(error, 'SITE_PEER_UNKNOWN') && error.message.startsWith('second'),
  );
  assert.deepEqual(silent.tenure(), { state: 'holds', claim: OWN });
});

test('F4 of two targets that have brought it up the one with the higher claim is asked to let go', async () => {
  const lower: Tenure = { state: 'follows', claim: { epoch: 2, siteId: 'first' } };
  const higher: Tenure = { state: 'holds', claim: { epoch: 3, siteId: 'second' } };
  const { machine, tools, tenure } = protectedTo({ first: lower, second: higher });
  await assert.rejects(takeBack(machine, tools), { code: 'MACHINE_TAKEN' });
  assert.deepEqual(tenure(), { state: 'fenced', claim: higher.claim, lost: OWN });
});

test('F4 that the other site has removed what it had of the machine is no promise of it, and says what is to be done', async () => {
  const { machine, tools, tenure } = protectedTo({ first: FOLLOWS, second: 'removed' });
  await machine.right.hear(GIVEN_UP.claim);
  const fenced = tenure();
  await assert.rejects(
    takeBack(machine, tools),
    (error) => isFailure(error, 'MACHINE_FORGOTTEN') && error.hint.includes('vm unprotect VM --confirm'),
  );
  assert.deepEqual(tenure(), fenced);
});

test('F4 a target that has nothing of the machine has brought nothing up, and hinders no other', async () => {
  const { machine, tools, tenure } = protectedTo({ first: 'removed', second: GIVEN_UP });
  await takeBack(machine, tools);
  assert.deepEqual(tenure(), { state: 'holds', claim: { epoch: 3, siteId: HOME } });
  const alone = protectedTo({ first: 'removed' });
  await assert.rejects(takeBack(alone.machine, alone.tools), { message: 'it is held here' });
});

test('F4 an offer is withdrawn on somebody’s word also while the replica cannot be read, of which nobody has brought newer points', () => {
  const unread = libFailure('DISK_FULL', 'its files cannot be read');
  const claim = GIVEN_UP.claim;
  const found = (tenure: Tenure) =>
    ({ machineId: 'm', name: 'box', home: { record: { tenure } }, unread }) as unknown as Found;
  checkNotOutdated(found({ state: 'cedes', claim: OWN, offer: claim }));
  for (const tenure of [
    { state: 'fenced', claim, lost: OWN },
    { state: 'follows', claim },
  ] as const)
    assert.throws(() => checkNotOutdated(found(tenure)), unread);
});

test('F4 a machine that was offered does not become what it was here before where points have come since from whoever took it', () => {
  const offer = { epoch: 4, siteId: 'other' };
  const home = { record: { tenure: { state: 'cedes', claim: OWN, offer } } };
  const came = (newest: object | undefined) =>
    ({ machineId: 'm', name: 'box', home, replica: { record: {}, newest } }) as unknown as Found;
  assert.throws(() => checkNotOutdated(came({})), { code: 'MACHINE_OUTDATED' });
  checkNotOutdated(came(undefined));
});
