import { loadBootProof, type PointProofs, pointProofs, readOrTell } from '../../failover/index.ts';
import type { FileSystem } from '../../lib/files.ts';
import type { Replica } from '../../replica/index.ts';

/** What plans ask of proofs. One that cannot be read counts for nothing; the report of its machine's own failover says so. */
export class BootsOfPoints {
  readonly #files: FileSystem;
  readonly #known = new Map<Replica, Promise<PointProofs>>();

  constructor(files: FileSystem) {
    this.#files = files;
  }

  /** Whether the last isolated boot of a point has failed, or has refuted what it claims. */
  async hasFailed(replica: Replica, pointId: string): Promise<boolean> {
    const known = this.#known.get(replica) ?? pointProofs(this.#files, replica);
    this.#known.set(replica, known);
    const { boots, demoted } = await known;
    return boots.get(pointId) === 'failed' || demoted.has(pointId);
  }
}

/** How long the newest isolated boot took that passed. */
export async function measuredMs(files: FileSystem, replica: Replica): Promise<number | undefined> {
  for (const { statement } of replica.points.toReversed()) {
    const { pointId } = statement;
    const read = () => loadBootProof(files, replica, pointId);
    const proof = (await readOrTell(pointId, () => undefined, read))?.proof;
    if (proof?.verdict === 'passed' && proof.rtoMs !== null) return proof.rtoMs;
  }
  return undefined;
}
