/**
 * The model of recovery points; pure.
 *
 * A *recovery point* is a state of a machine that can be activated. The protected site describes it by a *point
 * statement*: machine, sequence, epoch, parent, consistency, and for every disk the root of its digest tree; it
 * signs that statement, and each statement names its parent by digest, so that the points of a machine are one
 * chain that nobody can reorder, shorten in the middle or alter unseen.
 *
 * A *copy type* says how consistent a copy strives to be, two of them for every machine and others of its own; the point says what was reached. A *schedule* says when
 * copies are made, *retention* which points stay and why, *selection* which one a failover tries first. A *tenure* says where
 * a site stands with the right to run a machine, a *vote* what a site has promised of that right to another.
 *
 * Nothing here knows the time, a file or a process: callers hand in what is, and get what should be. Order is by
 * sequence number alone; times are for people and for weighing age.
 */
export * from './bandwidth.ts';
export * from './copy-schedule.ts';
export * from './copy-type.ts';
export { DRILL_OUTCOMES } from './drill-outcomes.ts';
export * from './drill-plan.ts';
export * from './drill-policy.ts';
export { POINT_ERRORS, pointFailure } from './errors.ts';
export { FixedTimes } from './fixed-times.ts';
export * from './group-cut.ts';
export * from './group-points.ts';
export * from './group-retention.ts';
export * from './lease.ts';
export { checkFloor, checkPolicy, checkRetention } from './policy-check.ts';
export * from './retention.ts';
export * from './retention-policy.ts';
export * from './schedule.ts';
export * from './selection.ts';
export * from './statement.ts';
export * from './tenure.ts';
export { TENURE_STATES } from './tenure-states.ts';
export * from './tpm-state.ts';
export type { Transfer } from './variable-interval.ts';
export { VOTE_STATES, voteStateOf } from './vote-states.ts';
export { endOfWindows, Window } from './windows.ts';
export { Zones } from './zones.ts';
