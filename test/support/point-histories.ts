import { randomBelow, systemRandom } from '../../src/lib/random.ts';
import type { Replica } from '../../src/replica/index.ts';
import type { FailoverSite } from '../../test/support/failover-site.ts';
import { writePieces } from '../support/tip-writer.ts';

/** Where the guest keeps no file system: its ledger's area on each disk, 16 MiB of which are written to here. */
const SCRATCH = { system: 360_448 * 512, data: 2_048 * 512 } as const;
const SCRATCH_BYTES = 16 * 1024 * 1024;
const PIECE_BYTES = 4096;

/** Changes `pieces` random places of 4 KiB on each disk of the stopped machine. It boots as before. */
export async function change({ sites, machine }: FailoverSite, pieces: number): Promise<void> {
  for (const disk of ['system', 'data'] as const) {
    const places = Array.from({ length: pieces }, () =>
      randomBelow(systemRandom, SCRATCH_BYTES / PIECE_BYTES),
    );
    const offsets = places.map((place) => SCRATCH[disk] + place * PIECE_BYTES);
    await writePieces(sites.directory, machine.chain(disk).at(-1)!.path, offsets, PIECE_BYTES);
  }
}

export interface FailoverFigures {
  /** From the command until the guest agent answered. */
  readonly rtoMs: number;
  /** Of that, our own acts before the guest's CPUs run, the start of QEMU among them. */
  readonly actsMs: number;
}

/** Fails over to the point and removes the branch again. */
export async function failOver(
  { failovers }: FailoverSite,
  replica: Replica,
  pointId: string,
): Promise<FailoverFigures> {
  const report = await failovers.start(replica, { pointId }, { confirmedOtherSideDown: true });
  if (report.branchId) await failovers.cleanup(replica, report.branchId);
  if (report.rtoMs === null) throw new Error(`the failover failed: ${JSON.stringify(report.attempts)}`);
  const acts = report.steps.filter(({ name }) => ['fence', 'branch', 'network', 'start'].includes(name));
  return { rtoMs: report.rtoMs, actsMs: acts.reduce((sum, { durationMs }) => sum + durationMs, 0) };
}
