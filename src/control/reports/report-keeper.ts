import { join } from 'node:path';
import Type from 'typebox';
import type { ReportPolicy, ReportPolicyRequest } from '../../api/index.ts';
import type { Clock } from '../../lib/clock.ts';
import { isFailure, messageOf } from '../../lib/errors.ts';
import type { FileSystem } from '../../lib/files.ts';
import { recordKind } from '../../lib/records.ts';
import type { Replicas } from '../../replica/index.ts';
import { reportFailure } from '../../report/index.ts';
import { type AlertSink, failureOf } from '../base/alerts.ts';
import type { Audit } from '../base/audit.ts';
import { Rounds } from '../base/rounds.ts';
import { Stored } from '../base/stored.ts';
import { expiredReports } from './report-retention.ts';
import type { Reports } from './reports.ts';

const REPORT_POLICY = recordKind(
  'report-policy',
  1,
  Type.Object({ keepTestsMs: Type.Optional(Type.Integer({ minimum: 1 })) }),
);

const DAY_MS = 86_400_000;
/** A year, and the weeks in which it is looked back upon. */
const DEFAULT_POLICY: ReportPolicy = { keepTestsMs: 400 * DAY_MS };
const LOOK_EVERY_MS = 3_600_000;
const ALERT = 'report-retention';

/** `report-policy.json` of a site. As long as it cannot be read every report stays. */
export function openReportPolicy(
  files: FileSystem,
  dataDirectory: string,
  alerts: AlertSink,
): Promise<Stored<ReportPolicy>> {
  const path = join(dataDirectory, 'report-policy.json');
  return Stored.open(files, path, REPORT_POLICY, DEFAULT_POLICY, { alerts, standIn: {} });
}

interface ReportKeeperTools {
  readonly clock: Clock;
  readonly alerts: AlertSink;
  readonly audit: Audit;
  readonly policy: Stored<ReportPolicy>;
  readonly replicas: Pick<Replicas, 'get' | 'broken'>;
  readonly reports: Pick<Reports, 'factsIfAnyBefore' | 'remove' | 'traceOf'>;
}

/** Keeps reports for as long as they are wanted, and removes them on a person's word. What has gone stands in the audit log, with its digest. */
export class ReportKeeper {
  readonly #o: ReportKeeperTools;
  #rounds: Rounds | undefined;
  #isOpen = true;

  constructor(o: ReportKeeperTools) {
    this.#o = o;
  }

  /** The reports are open. */
  begin(): void {
    const { clock } = this.#o;
    this.#rounds = new Rounds({ clock, everyMs: LOOK_EVERY_MS, round: () => this.#look() });
  }

  async close(): Promise<void> {
    this.#isOpen = false;
    await this.#rounds?.close();
  }

  /** Throws why it cannot be read. */
  get policy(): ReportPolicy {
    return this.#o.policy.said;
  }

  /** Durable on return; what it lets go goes within the hour. */
  changePolicy(actor: string, { keepTestsMs }: ReportPolicyRequest): Promise<ReportPolicy> {
    const { audit, policy } = this.#o;
    return audit.acting({ actor, act: 'report.policy', details: { keepTestsMs } }, () =>
      policy.change(() => (keepTestsMs === null ? {} : { keepTestsMs })),
    );
  }

  /** Whatever it is about: a person knows what is needed. Throws REPORT_UNKNOWN. */
  async remove(actor: string, reportId: string): Promise<void> {
    const { audit, reports } = this.#o;
    const details = await reports.traceOf(reportId);
    await audit.acting({ actor, act: 'report.remove', subject: reportId, details }, () =>
      reports.remove(reportId),
    );
  }

  async #look(): Promise<void> {
    // Where it cannot be read nothing goes.
    const { keepTestsMs } = this.#o.policy.value;
    try {
      if (keepTestsMs !== undefined) await this.#removeExpired(keepTestsMs);
      this.#o.alerts.clear(ALERT);
    } catch (error) {
      const said = `reports that are too old are not removed: ${messageOf(error)}`;
      const failure = reportFailure('REPORT_NOT_REMOVED', said, { cause: failureOf(error) });
      this.#o.alerts.raise(ALERT, 'warning', failure);
    }
  }

  async #removeExpired(keepTestsMs: number): Promise<void> {
    const { clock, reports } = this.#o;
    const nowMs = clock.wallMs();
    const facts = await reports.factsIfAnyBefore(nowMs - keepTestsMs);
    const hasPoint = (machineId: string, pointId: string) => this.#hasPoint(machineId, pointId);
    for (const reportId of expiredReports(facts, { nowMs, keepTestsMs, hasPoint })) {
      if (!this.#isOpen) return;
      try {
        await this.remove('site', reportId);
      } catch (error) {
        // A person has removed it meanwhile.
        if (!isFailure(error, 'REPORT_UNKNOWN')) throw error;
      }
    }
  }

  /** What cannot be opened may have it. */
  #hasPoint(machineId: string, pointId: string): boolean {
    const { replicas } = this.#o;
    if (replicas.broken.some((one) => one.machineId === machineId)) return true;
    const points = replicas.get(machineId)?.points ?? [];
    return points.some(({ statement }) => statement.pointId === pointId);
  }
}
