import type { LedgerCheck, LedgerReport } from '../lab/index.ts';
import type { RouteAnswer } from '../src/api/index.ts';
import type { FailoverReport } from '../src/failover/index.ts';

export interface DemoOutcome {
  readonly points: RouteAnswer<'point.list'>;
  readonly publishedByType: Readonly<Record<string, number>>;
  readonly changedBytes: number;
  readonly receivedBytes: number;
  readonly killedAtMs: number;
  /** The last record that the guest itself had reported before the kill. */
  readonly lastReport: LedgerReport;
  /** Delta that was on its way when the site died: bytes that had left, of those there were. */
  readonly cutOff: { readonly bytesDone: number; readonly bytesTotal: number } | undefined;
  readonly failover: FailoverReport;
  readonly ledger: LedgerCheck;
  /** The last record that the guest had reported before the chosen point was cut. */
  readonly promisedSeq: number;
  /** A drill of the same point on an isolated network: the guest was asked to draw a nonce, and a picture taken. */
  readonly bootProof: FailoverReport;
  readonly picturePath: string | undefined;
  readonly contentProof: { readonly blocks: number; readonly bytes: number };
}

/** Prints the report; returns the checks that did not hold. */
export function report(outcome: DemoOutcome): string[] {
  const { failover, ledger, lastReport, killedAtMs } = outcome;
  const { point } = failover;
  const attempt = failover.attempts.at(-1);
  const rpoSeconds = (killedAtMs - point.cutAtMs) / 1000;
  const checks: [string, boolean][] = [
    ['the site died in the middle of a transfer', outcome.cutOff !== undefined],
    [
      'points of both types were published',
      (outcome.publishedByType.app ?? 0) > 0 && (outcome.publishedByType.crash ?? 0) > 0,
    ],
    ['the ledger has no gap, no tear and nothing foreign', ledger.contiguous],
    [
      'every record reported before the cut is there, and there are some',
      outcome.promisedSeq > 0 && ledger.last >= outcome.promisedSeq,
    ],
    ['the point reads, through QEMU, as the protected site signed it', outcome.contentProof.bytes > 0],
    ['the machine came up and its probes passed', failover.verdict === 'passed'],
    ['a drill of the same point passed', outcome.bootProof.verdict === 'passed'],
    [
      'the console picture shows the nonce that was written on it',
      outcome.bootProof.attempts.at(-1)?.nonce === 'read',
    ],
    ['the recovery time was measured', failover.rtoMs !== null],
  ];
  const row = (name: string, text: string) => console.log(`  ${name.padEnd(22)}${text}`);
  console.log('\n  Report');
  row(
    'points published',
    Object.entries(outcome.publishedByType)
      .map(([type, count]) => `${count} ${type}`)
      .join(', '),
  );
  row('bytes changed / sent', `${mib(outcome.changedBytes)} / ${mib(outcome.receivedBytes)}`);
  row('point recovered', `#${point.sequence} ${point.consistency} (${attempt?.reason ?? ''})`);
  row(
    'RPO actual',
    `${rpoSeconds.toFixed(2)} s, ${Math.max(0, lastReport.seq - ledger.last)} ledger records of ${lastReport.seq}`,
  );
  row(
    'RTO',
    failover.rtoMs === null
      ? 'not reached'
      : `${(failover.rtoMs / 1000).toFixed(2)} s (${failover.accelerator})`,
  );
  row('ledger', `records up to ${ledger.last}; reported before the cut: ${outcome.promisedSeq}`);
  row(
    'content proof',
    `${outcome.contentProof.blocks} blocks read back, ${mib(outcome.contentProof.bytes)} of disks`,
  );
  row('boot proof', `${outcome.bootProof.verdict}; picture ${outcome.picturePath ?? 'none'}`);
  for (const warning of failover.warnings) row('warning', warning);
  console.log('');
  for (const [what, held] of checks) console.log(`  ${held ? '✔' : '✘'} ${what}`);
  return checks.filter(([, held]) => !held).map(([what]) => what);
}

function mib(bytes: number): string {
  return `${(bytes / 1024 / 1024).toFixed(1)} MiB`;
}
