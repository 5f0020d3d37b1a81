/**
 * The replica store: recovery points on disk at the recovery site.
 *
 * A *replica* is what this site holds of one machine. Every disk is a *chain* of *layers*, differencing disks named
 * after their points; the oldest is complete. A *manifest* makes a point of the layers that bear its name: it holds the
 * signed statement of the protected site, and its rename is the publication. Beside each layer lie its *leaves*: the
 * digests of the blocks that it changed.
 *
 * A *receive session* is a delta on its way in; it can break off at any frame and go on later. A *merge* moves the content
 * of points that retention lets go into the layer above them. A *branch* is a writable child of a point. A *content proof*
 * says that a chain was read through QEMU and equals what was signed.
 *
 * Promised: a point that is listed is durable, verified and whole; a published layer changes only by a journaled merge
 * that was checked against the old content; whatever process dies at whatever instant, opening the directory again
 * leads to a state in which nothing acknowledged is missing and nothing unacknowledged is listed.
 *
 * Relied on: `FileSystem` for durability, `DiskImages` for reading chains and folding, the delta decoder for order and
 * limits. Layout and formats: docs/format.md. No database is needed to open a replica.
 */
export {
  branchChain,
  branchLayer,
  checkBranchName,
  createBranch,
  findBranch,
  freeBranchName,
  listBranches,
  removeBranch,
} from './branch.ts';
export { digestsOf, readAhead } from './content.ts';
export { deepChain } from './depth.ts';
export type { Acknowledgement, Incoming, ReplicaDescription, ReplicaPoint } from './description.ts';
export { REPLICA_ERRORS } from './errors.ts';
export { filesInHeaders } from './header-chain.ts';
export { holdPoint } from './hold.ts';
export { ReplicaLayout } from './layout.ts';
export { loadPoints } from './loading.ts';
export type { Offer, OfferAnswer, OfferConflict } from './offer.ts';
export {
  DIGEST_PAGE_BLOCKS,
  type DigestPage,
  OlderDisks,
  type OlderFile,
  olderCopyChanged,
  tryOlderFile,
} from './older-copy.ts';
export {
  type BranchRecord,
  bringerOf,
  CONTENT_PROOF,
  type ContentProof,
  POINT_MANIFEST,
  type PointManifest,
  type ReplicaDecision,
  type ReplicaRecord,
} from './records.ts';
export { Replica } from './replica.ts';
export { followingSource, rightState, tenureOfReplica, withOffer, withTenure } from './replica-tenure.ts';
export { Replicas } from './replicas.ts';
export type { Others } from './retention-facts.ts';
export {
  encodeSeedEnd,
  findSeed,
  SEED_SUFFIX,
  SeedFile,
  type SeedManifest,
  seedHeader,
} from './seed-file.ts';
export type { SeedProgress } from './seed-import.ts';
export { awaitingSeed, type SeedImported, type Seeding } from './seeding.ts';
export type { SeedAnnouncement } from './stand-in.ts';
export type { ReplicaTools } from './tools.ts';
export type { Trunk, TrunkState } from './trunk.ts';
export { type VerifyProgress, verifyPoint } from './verify.ts';
