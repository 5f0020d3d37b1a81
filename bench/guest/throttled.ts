import { copyAndSend, inGuest, type LabSites, sendAll } from '../../test/support/lab-sites.ts';
import type { CleanUp } from '../../test/support/temporary.ts';
import { atLeast, median } from '../support/figures.ts';
import { BYTES_OF_WRITE, countOfRound, latency, PATTERNS, type Pattern, type Writes } from './latency.ts';
import { labWithWrittenDisk, WRITTEN_DISK } from './written-disk.ts';

const MIB = 1024 * 1024;
const LINK_BYTES_PER_SECOND = 1_000_000;
/** The guest's throughput while a delta is on the throttled link against none under way. */
const THROUGHPUT_TARGET = 0.95;
/** What is changed before each round: more than the throttled link carries while the round lasts. */
const BACKLOG_BYTES = 32 * MIB;

interface Throughput {
  readonly pattern: Pattern;
  /** Bytes a second. */
  readonly idle: number[];
  readonly throttled: number[];
}

/**
 * What the guest can write while a delta goes over a link of 1 MB/s, against what it can write when everything is
 * delivered. Every round begins with the same change and a cut, so that both meet a fresh layer; which of the two comes
 * first changes from round to round.
 */
export async function compareThrottled(scope: CleanUp, rounds: number): Promise<void> {
  const { lab, agentPath } = await labWithWrittenDisk(scope);
  const rows: Throughput[] = [];
  for (const pattern of PATTERNS) {
    const count = await countOfRound(agentPath, { ...WRITTEN_DISK, pattern });
    const row: Throughput = { pattern, idle: [], throttled: [] };
    for (let round = 1; round <= rounds; round++) {
      const request = { ...WRITTEN_DISK, pattern, count, seed: round };
      const work = async () => throughputOf(agentPath, request);
      const idle = async () => row.idle.push(await whileIdle(lab, round, work));
      const throttled = async () => row.throttled.push(await whileThrottled(lab, round, work));
      for (const measure of round % 2 === 1 ? [idle, throttled] : [throttled, idle]) await measure();
    }
    rows.push(row);
  }
  print(rows);
}

async function throughputOf(agentPath: string, request: Writes): Promise<number> {
  const { meanUs } = await latency(agentPath, request);
  return (BYTES_OF_WRITE[request.pattern] * 1e6) / meanUs;
}

/** Everything that was changed is delivered and merged before `work` begins. */
async function whileIdle<T>({ machine, sites }: LabSites, round: number, work: () => Promise<T>): Promise<T> {
  await changeBacklog(machine, round);
  await copyAndSend(machine, sites.target);
  return work();
}

/** The delta is under way all the time that `work` takes, or the round is void; then it goes on unthrottled. */
async function whileThrottled<T>(
  { machine, sites }: LabSites,
  round: number,
  work: () => Promise<T>,
): Promise<T> {
  await changeBacklog(machine, round);
  await machine.cut('crash');
  await machine.changeProtection({ bytesPerSecond: LINK_BYTES_PER_SECOND });
  let isSent = false;
  const sending = sendAll(machine, sites.target).finally(() => {
    isSent = true;
  });
  try {
    const [result] = await Promise.all([
      work().finally(async () => {
        if (isSent) throw new Error('the delta had gone before the guest had written all: the round is void');
        await machine.changeProtection({ bytesPerSecond: undefined });
      }),
      sending,
    ]);
    return result;
  } finally {
    await Promise.allSettled([sending]);
  }
}

async function changeBacklog(machine: LabSites['machine'], round: number): Promise<void> {
  const fill = `labtool fill --device ${WRITTEN_DISK.device} --pattern random --bytes ${BACKLOG_BYTES} --seed ${round}`;
  await inGuest(machine.record.sockets.agentPath!, fill);
}

function print(rows: readonly Throughput[]): void {
  const megabytes = (bytesPerSecond: number) => Number((bytesPerSecond / 1e6).toFixed(2));
  console.table(
    rows.flatMap(({ pattern, idle, throttled }) =>
      Object.entries({ 'nothing under way': idle, 'a delta at 1 MB/s': throttled }).map(([how, rates]) => ({
        pattern,
        how,
        'throughput, MB/s (median)': megabytes(median(rates)),
        least: megabytes(Math.min(...rates)),
        most: megabytes(Math.max(...rates)),
      })),
    ),
  );
  for (const { pattern, idle, throttled } of rows) {
    const ratio = median(throttled) / median(idle);
    const figure = atLeast(ratio, THROUGHPUT_TARGET);
    console.log(`${pattern}: throughput with a delta on a link of 1 MB/s against none ${figure}`);
  }
}
