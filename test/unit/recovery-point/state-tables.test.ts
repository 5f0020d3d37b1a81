/** The tables of docs/failover.md against the functions that the sites run: neither has a way that the other does not have. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seizeRight } from '../../../src/failover/right.ts';
import {
  afterAsking,
  afterCeding,
  afterGivingUp,
  afterHearing,
  afterLettingGo,
  afterSeizing,
  afterSettingApart,
  afterTaking,
  afterWithdrawal,
  type Claim,
  DRILL_OUTCOMES,
  type DrillMachine,
  type DrillOutcome,
  type DrillPoint,
  nextDrill,
  TENURE_STATES,
  type Tenure,
  VOTE_STATES,
  type Vote,
  voteStateOf,
} from '../../../src/recovery-point/index.ts';
import type { Replica, ReplicaRecord } from '../../../src/replica/index.ts';
import { tenureOf, unprotected } from '../../../src/replication/machine-tenure.ts';
import type { MachineRecord } from '../../../src/replication/records.ts';
import { waysOf } from '../../support/state-ways.ts';

const HERE = 'P';
const SITES = ['A', HERE, 'R'];
const CLAIMS: readonly Claim[] = [1, 2, 3, 4].flatMap((epoch) => SITES.map((siteId) => ({ epoch, siteId })));

function tenures(): Tenure[] {
  return CLAIMS.flatMap((claim): Tenure[] => {
    const higher = { epoch: claim.epoch + 1, siteId: 'R' };
    return [
      ...(claim.siteId === HERE
        ? [
            { state: 'holds' as const, claim },
            { state: 'cedes' as const, claim, offer: higher },
            { state: 'fenced' as const, claim: higher, lost: claim },
          ]
        : []),
      { state: 'follows', claim },
    ];
  });
}

/** By a failover that a person begins; also where the machine is held already. */
async function seizedByFailover(tenure: Tenure): Promise<Tenure> {
  let record = { epoch: tenure.claim.epoch, sourceSiteId: 'R', tenure } as ReplicaRecord;
  const update: Replica['update'] = async (change) => {
    record = { ...record, ...(typeof change === 'function' ? change(record) : change) };
  };
  await seizeRight({ record, update } as Replica, HERE);
  return record.tenure!;
}

function withoutProtection(tenure: Tenure): Tenure {
  const record = { name: 'db', epoch: tenure.claim.epoch, tenure } as MachineRecord;
  return tenureOf(unprotected(record, true), HERE);
}

test('F4 S0.17 the table of tenures in docs/failover.md is what the functions of the right do, all of it', async () => {
  const ways = new Set<string>();
  const note = (before: Tenure, by: string, after: Tenure | undefined) => {
    if (after && JSON.stringify(after) !== JSON.stringify(before))
      ways.add(`${before.state} –${by}→ ${after.state}`);
  };
  for (const tenure of tenures()) {
    note(tenure, 'cede', afterCeding(tenure, 'R'));
    note(tenure, 'give up', afterGivingUp(tenure));
    note(tenure, 'seize', afterSeizing(tenure, HERE));
    // A replica cedes nothing, and one that is fenced is refused before this (`checkNotFenced`).
    if (tenure.state === 'holds' || tenure.state === 'follows')
      note(tenure, 'seize', await seizedByFailover(tenure));
    note(tenure, 'set apart', afterSettingApart(tenure));
    note(tenure, 'end the protection', withoutProtection(tenure));
    for (const claim of CLAIMS) {
      note(tenure, 'hear', afterHearing(tenure, HERE, claim));
      note(tenure, 'take', afterTaking(tenure, HERE, claim));
      if (claim.siteId !== HERE) note(tenure, 'promise', afterWithdrawal(tenure, HERE, claim));
    }
  }
  assert.deepEqual([...ways].sort(), waysOf(TENURE_STATES));
});

test('S0.17 the table of votes in docs/failover.md is what lenders do, all of it', () => {
  const ways = new Set<string>();
  const note = (before: Vote | undefined, by: string, after: Vote) => {
    if (JSON.stringify(after) !== JSON.stringify(before))
      ways.add(`${voteStateOf(before)} –${by}→ ${voteStateOf(after)}`);
  };
  // All that can be come to, from nothing on.
  const reached = new Map<string, Vote | undefined>([['', undefined]]);
  for (const vote of reached.values()) {
    const found: Vote[] = [];
    const go = (by: string, after: Vote) => {
      note(vote, by, after);
      found.push(after);
    };
    for (const claim of CLAIMS.filter(({ siteId }) => siteId !== 'A')) {
      for (const isLent of [true, false]) {
        for (const kind of ['renew', 'hold'] as const)
          go(kind, afterAsking(vote, { kind, claim }, isLent).vote);
        for (const over of CLAIMS.filter(({ siteId }) => siteId !== 'A'))
          go('vote', afterAsking(vote, { kind: 'vote', claim, over }, isLent).vote);
      }
      if (vote) go('let go', afterLettingGo(vote, claim));
    }
    // A map that grows while it is walked through is walked through to its end.
    for (const next of found) reached.set(JSON.stringify(next), next);
  }
  assert.deepEqual([...ways].sort(), waysOf(VOTE_STATES));
});

test('F6 what docs/failover.md says of drills that come again is what is planned', () => {
  const after = (outcome: DrillOutcome, times: number): boolean => {
    const point: DrillPoint = {
      ...{
        pointId: 'p1',
        sequence: 1,
        copyType: 'app',
        consistency: 'application',
        arrivedAtMs: 0,
        isLeaving: false,
      },
      proof: outcome === 'passed' || outcome === 'failed' || outcome === 'refuted' ? outcome : 'none',
    };
    const attempt = { pointId: 'p1', sequence: 1, ofOthers: false, startedAtMs: 0, endedAtMs: 1, outcome };
    const machine: DrillMachine = {
      ...{
        machineId: 'box',
        policy: { proveWithinMs: 1 },
        isPaused: false,
        memoryBytes: 1,
        canBeAsked: true,
      },
      ...{ points: [point], attempts: Array.from({ length: times }, () => attempt) },
    };
    const budget = { memoryBytes: 1, atOnce: 1 };
    return nextDrill({ machines: [machine], budget, running: [], nowMs: 2 ** 40 }).start !== undefined;
  };
  for (const [outcome, { again }] of Object.entries(DRILL_OUTCOMES)) {
    const is = [1, 2, 5, 6, 100].map((times) => after(outcome as DrillOutcome, times));
    const said = {
      never: [false, false, false, false, false],
      once: [true, false, false, false, false],
      'a few times': [true, true, true, false, false],
      always: [true, true, true, true, true],
    };
    assert.deepEqual(is, said[again], outcome);
  }
});
