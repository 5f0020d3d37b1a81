/**
 * Branches brought to life: recovery points booted, watched and proven; test failovers and unplanned failovers.
 *
 * Nouns. A *branch* (a writable child of a point, see `replica`) gets a machine, an *isolated network* (a network
 * namespace with bridges and taps and no way out) or the networks of this host. A *probe* is a question that a guest
 * answers only when it runs as it should. A *console picture* is a machine's screen as QEMU dumps it. A *nonce* is a
 * fresh random word that a guest is asked to draw on its text console; reading it off the picture proves that this
 * very guest, in this very boot, runs far enough to answer its agent and to draw. *Glyphs* are learned from the picture
 * itself, so that no font is assumed. A *boot proof* is the signed record of how an isolated boot went. An *attempt* is
 * one point tried; a *failover report* tells them all. An *assertion* is a claim of a point about its applications, asked of
 * the guest that a test has booted; an *application proof* is the signed record of the answers, and one that failed
 * *demotes* the point: it counts as crash-consistent.
 *
 * A test has *limits*, and all tests of a site together obey its *rules*: how many run at once, how much space they leave.
 *
 * Promises. A test touches neither the point nor the outside and leaves nothing behind. An unplanned failover raises
 * the epoch before anything else, so that the old source is refused from then on; it says that both sites may be
 * running. No two machines of one replica's failovers run at a time. What is done to a branch is recorded before it is
 * done; processes are found by the run directory on their command line and networks by names that follow from the
 * branch's id, so that whatever dies at whatever instant, `recover` and `cleanup` find all of it and nothing else.
 * Pictures, serial logs and agents are the guest's: they are read with limits and answer «undefined» or a failed
 * probe.
 *
 * Relies on Linux network namespaces and `ip` (iproute2) with CAP_NET_ADMIN and CAP_SYS_ADMIN; without them cables
 * stay unplugged and the report says so. Sources: PPM (netpbm), PNG (RFC 2083), Linux console escapes
 * (console_codes(4)).
 */
export type { AdoptedBranch, NewHome } from './adoption.ts';
export {
  applicationProofBytes,
  demotedPoints,
  isApplicationProofOf,
  loadApplicationProof,
} from './application-proof.ts';
export type { AssertionReport } from './assertions.ts';
export { bootProofBytes, isBootProofOf, loadBootProof, provenPoints } from './boot-proof.ts';
export type { WantedChanges } from './branch-changes.ts';
export { BRANCH_PHASES } from './branch-phases.ts';
export { recoveryOf } from './branch-state.ts';
export type { BranchView } from './branch-view.ts';
export { type PointChoice, type PointProofs, pointProofs } from './candidates.ts';
export { consoleCommand, consoleScript, readNonce, readNonceOf } from './console-picture.ts';
export { CpuGroups } from './cpu-groups.ts';
export { FAILOVER_ERRORS } from './errors.ts';
export { Failovers } from './failovers.ts';
export { type FencedSide, type Fencing, type FencingProgram, fenceBy, lackOfFence } from './fencing.ts';
export { type BranchNetworks, branchNetworks, type NetworkReport, type NicMapping } from './network.ts';
export { checkNicsNamed } from './nic-checks.ts';
export type { StartOptions, TakeOptions, TestOptions } from './options.ts';
export { cropPicture, decodePpm, distinctColours, encodePng, type Picture } from './picture.ts';
export {
  ADOPT_STEPS,
  CEDE_STEPS,
  type ProcedureStep,
  TAKE_STEPS,
  TEST_STEPS,
  TURN_STEPS,
  UNDO_STEPS,
  UNPLANNED_STEPS,
} from './procedures.ts';
export {
  APPLICATION_PROOF,
  type ApplicationProof,
  BOOT_PROOF,
  type BootProof,
  type SignedApplicationProof,
  type SignedBootProof,
} from './records.ts';
export type { AttemptReport, FailoverReport, PointSummary, StepReport } from './report.ts';
export { checkMayUndo } from './right.ts';
export { SitePrograms } from './site-programs.ts';
export { checkStart, whyNotStarted } from './start-check.ts';
export type { TestRules } from './test-guard.ts';
export type { TestLimits } from './test-limits.ts';
export type { FailoverTools } from './tools.ts';
export type { UndoReport } from './undo.ts';
export { readOrTell } from './unread-proof.ts';
