import type { LedgerPort } from '../lab/index.ts';
import { sleep, systemClock } from '../src/lib/clock.ts';
import { isFailure } from '../src/lib/errors.ts';
import type { DemoSite } from './demo-site.ts';
import { say } from './say.ts';

export interface Watched {
  readonly publishedByType: Record<string, number>;
  readonly changedBytes: number;
  readonly receivedBytes: number;
  /** Waits for a delta of which a part has been sent. */
  transferUnderWay(): Promise<{ bytesDone: number; bytesTotal: number } | undefined>;
}

const LOOK_EVERY_MS = 500;
const TRANSFER_LIMIT_MS = 30_000;

/** Shows seeding, every point as it is published, and the running RPO, for the given time after the first point. */
export async function watchReplication(o: {
  alpha: DemoSite;
  beta: DemoSite;
  machine: string;
  ledger: LedgerPort;
  seconds: number;
  afterSeeding: () => Promise<unknown>;
}): Promise<Watched> {
  const seen = new Set<string>();
  const publishedByType: Record<string, number> = {};
  let changedBytes = 0;
  let receivedBytes = 0;
  let untilMs = Number.POSITIVE_INFINITY;
  while (systemClock.monotonicMs() < untilMs) {
    const transfer = (await o.alpha.machine(o.machine)).protected?.replication?.transfer;
    if (transfer?.complete) {
      say.line(`seeding: ${percent(transfer)} of ${(transfer.bytesTotal / 1024 / 1024).toFixed(0)} MiB`);
    }
    for (const point of await pointsAt(o.beta, o.machine)) {
      if (seen.has(point.pointId)) continue;
      seen.add(point.pointId);
      publishedByType[point.copyType] = (publishedByType[point.copyType] ?? 0) + 1;
      changedBytes += point.changedBytes ?? 0;
      receivedBytes += point.receivedBytes ?? 0;
      const { actualMs } = (await o.beta.machine(o.machine)).replica?.rpo ?? {};
      say.line(
        `point #${point.sequence} ${point.copyType.padEnd(5)} ${point.consistency.padEnd(11)} changed ${kib(point.changedBytes)} sent ${kib(point.receivedBytes)}` +
          `  RPO now ${((actualMs ?? 0) / 1000).toFixed(1)} s  ledger ${o.ledger.last?.seq ?? 0}`,
      );
      if (seen.size === 1) {
        untilMs = systemClock.monotonicMs() + o.seconds * 1000;
        await o.afterSeeding();
      }
    }
    await sleep(systemClock, LOOK_EVERY_MS);
  }
  return {
    publishedByType,
    changedBytes,
    receivedBytes,
    async transferUnderWay() {
      const limitMs = systemClock.monotonicMs() + TRANSFER_LIMIT_MS;
      while (systemClock.monotonicMs() < limitMs) {
        const transfer = (await o.alpha.machine(o.machine)).protected?.replication?.transfer;
        if (transfer && transfer.bytesDone > 0 && transfer.bytesDone < transfer.bytesTotal) return transfer;
        await sleep(systemClock, 20);
      }
      return undefined;
    },
  };
}

/** Before the first delta is offered the recovery site has never heard of the machine. */
async function pointsAt(beta: DemoSite, machine: string) {
  try {
    return (await beta.points(machine)).toSorted((a, b) => (a.sequence ?? 0) - (b.sequence ?? 0));
  } catch (error) {
    if (isFailure(error) && error.kind === 'missing') return [];
    throw error;
  }
}

function percent({ bytesDone, bytesTotal }: { bytesDone: number; bytesTotal: number }): string {
  return `${bytesTotal === 0 ? 100 : Math.floor((100 * bytesDone) / bytesTotal)} %`;
}

function kib(bytes: number | undefined): string {
  return `${((bytes ?? 0) / 1024).toFixed(0)} KiB`.padStart(10);
}
