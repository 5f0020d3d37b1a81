import { checkLedgerDisks, LEDGER_AREAS, type LedgerCheck } from '../lab/index.ts';
import type { RouteAnswer } from '../src/api/index.ts';
import { type ImageReader, QemuImages } from '../src/hypervisor/index.ts';
import { systemClock } from '../src/lib/clock.ts';
import { ReplicaLayout } from '../src/replica/index.ts';

/**
 * Reads the ledger of a recovery point from the replica's files, without the site's help: the chain of each disk through
 * QEMU, the records out of the raw areas.
 */
export async function checkPointLedger(
  dataDirectory: string,
  machineId: string,
  points: RouteAnswer<'point.list'>,
  pointId: string,
): Promise<LedgerCheck> {
  const layout = new ReplicaLayout(dataDirectory, machineId);
  const ascending = points
    .filter(({ sequence }) => sequence !== undefined)
    .sort((a, b) => a.sequence! - b.sequence!);
  const upTo = ascending.slice(0, ascending.findIndex((point) => point.pointId === pointId) + 1);
  const images = new QemuImages({ clock: systemClock });
  const readers: ImageReader[] = [];
  try {
    const disks = [];
    for (const { disk, partition } of LEDGER_AREAS) {
      const reader = await images.open(
        upTo.map((point) => ({ path: layout.layer(disk, point.pointId), format: 'qcow2' as const })),
      );
      readers.push(reader);
      const read = async (offset: number, length: number): Promise<Buffer> => {
        const bytes = Buffer.alloc(length);
        await reader.readInto(bytes, offset);
        return bytes;
      };
      disks.push({ read, partition });
    }
    return await checkLedgerDisks(disks);
  } finally {
    for (const reader of readers) await reader.close();
  }
}
