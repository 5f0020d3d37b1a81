import type { Failure } from '../lib/errors.ts';
import {
  afterGivingUp,
  afterSeizing,
  afterTaking,
  compareClaims,
  hasGivenUp,
  type Tenure,
} from '../recovery-point/index.ts';
import { type Replica, rightState, type Trunk, tenureOfReplica, withTenure } from '../replica/index.ts';
import { runDirectoryOf } from './branch-machine.ts';
import { loadState } from './branch-state.ts';
import { failoverFailure } from './errors.ts';
import type { Fencing } from './fencing.ts';
import type { StartOptions, Voting } from './options.ts';
import type { HeldBy } from './report.ts';
import type { FailoverTools } from './tools.ts';

/** How a site gets the right to run a machine of which it has a replica: docs/failover.md. Each act is durable on return. */

export type Right = (replica: Replica, siteId: string) => Promise<HeldBy>;

/** By one of the ways below, and by which; whoever has to know of it hears of it before anything starts. */
export async function holdBy(
  right: Right,
  { siteId, log, onHeld }: Pick<FailoverTools, 'siteId' | 'log' | 'onHeld'>,
  replica: Replica,
): Promise<HeldBy> {
  const heldBy = await right(replica, siteId);
  const { machineId, epoch } = replica.record;
  log.info('failover.held', { machineId, epoch, heldBy });
  await onHeld?.(replica);
  return heldBy;
}

/** What a person must know of how the right was got. */
export function warningsOf(heldBy: HeldBy): readonly string[] {
  return heldBy === 'held-before'
    ? ['This site held the right to run the machine already: no vote was needed.']
    : [];
}

/** What a person must know of what was brought up upon the same point before. */
export function warningsBefore(branchIds: readonly string[] | undefined): readonly string[] {
  if (branchIds === undefined) return [];
  return branchIds.length > 0
    ? [
        `What may have been written before, in ${branchIds.join(', ')} upon the same point, is not in this branch.`,
      ]
    : ['The machine was taken over before: what may have been written then is in no branch any more.'];
}

/** How the right is had without the help of who holds it. Throws FAILOVER_UNCONFIRMED. */
export function rightUpon({ voting, fencing, confirmedOtherSideDown }: StartOptions): Right {
  if (voting) return votedRight(voting);
  if (fencing) return fencedRight(fencing);
  if (confirmedOtherSideDown === true) return seizeRight;
  throw failoverFailure('FAILOVER_UNCONFIRMED', 'nobody has confirmed that the other side is down');
}

/** Without the help of who holds it. A site that holds it already gets a claim above its own: what it ran before has ended. */
export async function seizeRight(replica: Replica, siteId: string): Promise<HeldBy> {
  await replica.update((record) => seized(record, siteId));
  return 'word';
}

function seized(record: Replica['record'], siteId: string) {
  const tenure = tenureOfReplica(record, siteId);
  const { claim } = tenure;
  const from: Tenure = tenure.state === 'follows' ? tenure : { state: 'follows', claim };
  return withTenure(record, afterSeizing(from, siteId)!);
}

/** When a program has made sure that the other side is down; until then nothing is taken. */
export function fencedRight(fencing: Fencing): Right {
  return async (replica, siteId) => {
    const { machineId, machineName, sourceSiteId } = replica.record;
    const { claim } = tenureOfReplica(replica.record, siteId);
    // Of what this site holds already, the one that it came from is the other side.
    const side = { siteId: claim.siteId === siteId ? sourceSiteId : claim.siteId, epoch: claim.epoch };
    await fencing.fence({ machineId, machineName, ...side });
    await replica.update((record) => {
      const tenure = tenureOfReplica(record, siteId);
      // It has heard of another holder meanwhile, whom nobody has fenced.
      if (compareClaims(tenure.claim, claim) !== 0) throw heldElsewhere(record, tenure);
      return seized(record, siteId);
    });
    return 'fencing';
  };
}

/**
 * By the votes of two of three sites. One that holds it already needs none: what it ran before has ended. It claims nothing anew then, as
 * it may only believe so: whoever took the machine back meanwhile would be fenced without anybody's vote or word.
 */
export function votedRight(voting: Voting): Right {
  return async (replica, siteId) => {
    const before = tenureOfReplica(replica.record, siteId);
    if (before.state === 'holds') {
      await replica.settle();
      await voting.confirm(before.claim);
      checkNotFenced({ siteId }, replica);
      return 'held-before';
    }
    const claim = await voting.seek();
    try {
      await replica.update((record) => {
        const tenure = tenureOfReplica(record, siteId);
        // It has heard of another one while it asked, perhaps of the same epoch.
        if (tenure.state !== 'follows' || claim.epoch <= tenure.claim.epoch)
          throw heldElsewhere(record, tenure);
        return withTenure(record, { state: 'holds', claim });
      });
    } catch (error) {
      // What could not be stored may be there all the same, and the next process would take it for the right to run the machine.
      voting.letGo(() => replica.update(({ tenure }) => ({ tenure })));
      throw error;
    }
    return 'votes';
  };
}

/** By the offer of who holds it; again after it was taken nothing changes. Throws FAILOVER_NOT_OFFERED. */
export async function takeRight(replica: Replica, siteId: string): Promise<HeldBy> {
  await replica.update((record) => {
    const { offer } = record;
    const taken = offer && afterTaking(tenureOfReplica(record, siteId), siteId, offer.claim);
    if (!taken) throw notOffered(replica);
    return { ...withTenure(record, taken), offer };
  });
  return 'offer';
}

/** What was brought up here has ended, and what it wrote stays in its branches. Whoever does not hold it has nothing to give up. */
export function giveUpRight(replica: Replica, siteId: string): Promise<void> {
  return replica.update((record) => {
    const after = record.adopted === undefined && afterGivingUp(tenureOfReplica(record, siteId));
    return after ? withTenure(record, after) : undefined;
  });
}

/**
 * Only what a failover has brought up here is undone, and only where the site that it came from can ask for it. Throws FAILOVER_ADOPTED,
 * FAILOVER_FENCED, FAILOVER_NOT_BEGUN, FAILOVER_NOT_DIRECT.
 */
export function checkMayUndo(replica: Pick<Replica, 'record'>, siteId: string): void {
  const { record } = replica;
  const { machineId, machineName, viaSiteId, sourceSiteId } = record;
  checkNotAdopted(replica);
  const tenure = tenureOfReplica(record, siteId);
  if (viaSiteId !== undefined) {
    const said = `the points of ${machineName} come from site ${sourceSiteId} by way of site ${viaSiteId}`;
    throw failoverFailure('FAILOVER_NOT_DIRECT', said, { context: { machineId, viaSiteId } });
  }
  if (tenure.state === 'holds' || hasGivenUp(tenure, siteId)) return;
  checkNotFenced({ siteId }, replica);
  throw failoverFailure('FAILOVER_NOT_BEGUN', `${machineName} was not brought up here`, {
    context: { machineId },
  });
}

/** The point that holds the last state of a machine whose right is offered, or was taken by that offer. Throws FAILOVER_NOT_OFFERED. */
export function offeredPoint(replica: Replica): string {
  const { offer } = replica.record;
  if (!offer) throw notOffered(replica);
  return offer.pointId;
}

/**
 * What was taken has a branch that somebody may have worked in. One that did not come up, and never ran before, hinders nobody who takes the
 * machine once more: he is told of it (`writtenBefore`). Throws FAILOVER_TAKEN.
 */
export async function checkNotTaken(tools: Pick<FailoverTools, 'files'>, replica: Replica): Promise<void> {
  if (rightState(replica.record) !== 'holds') return;
  for (const branchId of uponOffered(replica)) {
    const state = await loadState(tools, replica, branchId);
    if (state?.phase === 'failed' && !state.hasRun) continue;
    const said = `${replica.record.machineName} was taken over already: branch ${branchId}`;
    throw failoverFailure('FAILOVER_TAKEN', said, { context: { branchId } });
  }
}

/**
 * What may have been written upon the offered point before it is taken now: the branches of it that are still here, also of failovers that did
 * not come up, as their guests may have served somebody until then. None: what there was, if anything, was removed. Undefined: nothing was
 * brought up upon it.
 */
export function writtenBefore(replica: Replica): readonly string[] | undefined {
  const branchIds = uponOffered(replica);
  return branchIds.length > 0 || rightState(replica.record) === 'holds' ? branchIds : undefined;
}

/** The branches of failovers upon the offered point. */
function uponOffered(replica: Replica): string[] {
  const pointId = offeredPoint(replica);
  const those = replica.branches.filter((one) => one.purpose === 'failover' && one.pointId === pointId);
  return those.map(({ branchId }) => branchId);
}

/** Whoever is fenced, or has given the machine up, runs nothing of it that was at work. Throws FAILOVER_FENCED, FAILOVER_GIVEN_UP. */
export function checkNotFenced(here: Pick<FailoverTools, 'siteId'>, replica: Pick<Replica, 'record'>): void {
  const lack = lackOfRight(here, replica);
  if (lack) throw lack;
}

/** Why nothing that was at work may run here; undefined: it may, as far as is known. */
export function lackOfRight(
  { siteId }: Pick<FailoverTools, 'siteId'>,
  { record }: Pick<Replica, 'record'>,
): Failure | undefined {
  const tenure = tenureOfReplica(record, siteId);
  if (hasGivenUp(tenure, siteId)) {
    const { machineId, machineName, sourceSiteId } = record;
    const said = `${machineName} was given up here, in epoch ${tenure.claim.epoch}: it is for site ${sourceSiteId} to take it back`;
    return failoverFailure('FAILOVER_GIVEN_UP', said, { context: { machineId, siteId: sourceSiteId } });
  }
  const isElsewhere =
    tenure.state === 'fenced' || (tenure.state === 'follows' && record.tenure !== undefined);
  return isElsewhere ? heldElsewhere(record, tenure) : undefined;
}

function heldElsewhere({ machineName }: Pick<Replica['record'], 'machineName'>, { claim }: Tenure) {
  const said = `${machineName} is at home at site ${claim.siteId} now, in epoch ${claim.epoch}`;
  return failoverFailure('FAILOVER_FENCED', said, { context: { siteId: claim.siteId, epoch: claim.epoch } });
}

/** A replica whose machine is at home here has no more to say of it; with a branch: that one is its disks. Throws FAILOVER_ADOPTED. */
export function checkNotAdopted({ record }: Pick<Trunk, 'record'>, branchId?: string): void {
  const { adopted, machineName } = record;
  if (adopted === undefined || (branchId !== undefined && adopted !== branchId)) return;
  const said = `${machineName} is at home at this site: its disks lie upon branch ${adopted}`;
  throw failoverFailure('FAILOVER_ADOPTED', said, { context: { branchId: adopted } });
}

function notOffered({ record: { machineId, machineName } }: Replica) {
  const said = `nobody has offered ${machineName} to this site`;
  return failoverFailure('FAILOVER_NOT_OFFERED', said, { context: { machineId } });
}

/** No two machines of one replica's failovers run at a time. */
export function runsAlready({ record: { machineId, machineName } }: Trunk, branchId?: string) {
  const said = `${machineName} has failed over to this site already`;
  return failoverFailure('FAILOVER_RUNS_ALREADY', said, { context: { machineId, branchId } });
}

/** The branch that a failover has brought up and whose machine runs, if there is one; `except` is not looked at. */
export async function runningBranch(
  tools: Pick<FailoverTools, 'hypervisor' | 'runDirectory'>,
  replica: Trunk,
  except?: string,
): Promise<string | undefined> {
  for (const { branchId, purpose } of replica.branches) {
    if (purpose !== 'failover' || branchId === except) continue;
    if ((await tools.hypervisor.processesOf(runDirectoryOf(tools, branchId))).length > 0) return branchId;
  }
  return undefined;
}

/** Throws FAILOVER_RUNS_ALREADY while a machine runs on the files of a branch. */
export async function checkEnded(tools: FailoverTools, replica: Trunk, branchId: string): Promise<void> {
  const [processId] = await tools.hypervisor.processesOf(runDirectoryOf(tools, branchId));
  if (processId === undefined) return;
  const said = `branch ${branchId} of ${replica.record.machineName} runs already`;
  throw failoverFailure('FAILOVER_RUNS_ALREADY', said, { context: { branchId, processId } });
}
