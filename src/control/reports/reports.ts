import { join } from 'node:path';
import type {
  AuditView,
  PlanRun,
  Report,
  ReportKind,
  ReportList,
  ReportSummary,
  SignedReport,
} from '../../api/index.ts';
import type { Clock } from '../../lib/clock.ts';
import { Failure, messageOf } from '../../lib/errors.ts';
import { type FileSystem, publishFile, readSmallFile } from '../../lib/files.ts';
import type { Log } from '../../lib/log.ts';
import { Mutex } from '../../lib/mutex.ts';
import { bornAtMs, isId } from '../../lib/random.ts';
import { decodeRecord, WARMSITE_VERSION } from '../../lib/records.ts';
import type { SiteIdentity } from '../../peer/index.ts';
import {
  DOCUMENT_BYTES_MAX,
  isSound,
  REPORT,
  reportDigest,
  reportFailure,
  signReport,
  verifyReport,
} from '../../report/index.ts';
import { type AlertSink, failureOf } from '../base/alerts.ts';
import type { Audit } from '../base/audit.ts';
import type { EndingJob, JobKind, JobRecorder } from '../base/jobs.ts';
import type { Inventory } from '../inventory/inventory.ts';
import type { PlanStore } from '../plans/plan-store.ts';
import { confirmedKey, type Origins } from '../replicas/origins.ts';
import { type EndedAct, endedAdoptions } from './report-adoptions.ts';
import { evidenceOf } from './report-evidence.ts';
import { hostVersions } from './report-host.ts';
import {
  confirmationsOf,
  failoverResultOf,
  lossOf,
  type MachineReport,
  planFigures,
  planPart,
  reportKindOf,
  timelineOf,
  verdictOf,
} from './report-making.ts';
import { ReportRemovals } from './report-removals.ts';
import { factsOf, type ReportFacts } from './report-retention.ts';
import { isAtHome, lackOfStanding, rightOf } from './report-right.ts';

interface ReportsTools {
  readonly files: FileSystem;
  readonly clock: Clock;
  readonly log: Log;
  readonly alerts: AlertSink;
  readonly audit: Audit;
  readonly identity: SiteIdentity;
  readonly dataDirectory: string;
  readonly inventory: Pick<Inventory, 'all' | 'unread'>;
  readonly plans: Pick<PlanStore, 'runs'>;
  readonly origins: Pick<Origins, 'confirmed'>;
}

const ALERT = 'reports';
const AGAIN_AFTER_MS = 60_000;
const LISTED = 100;
const LISTED_MAX = 1000;

/**
 * `reports/<id>.json` of a site: a signed report of each failover, test and run of a plan, named after its job. What is removed of machines and
 * points takes none of them along; one that was removed itself is not written again.
 */
export class Reports implements JobRecorder {
  readonly #o: ReportsTools;
  readonly #directory: string;
  readonly #ids = new Set<string>();
  readonly #summaries = new Map<string, ReportSummary>();
  readonly #facts = new Map<string, ReportFacts>();
  readonly #removals: ReportRemovals;
  /** What could not be written yet. */
  readonly #owed = new Map<string, EndedAct>();
  readonly #writing = new Mutex();
  #cancelAgain: (() => void) | undefined;
  #isOpen = true;

  constructor(o: ReportsTools) {
    this.#o = o;
    this.#directory = join(o.dataDirectory, 'reports');
    this.#removals = new ReportRemovals(o, this.#directory);
  }

  /** To be called before the first `record`. */
  async open(): Promise<void> {
    const { files } = this.#o;
    await files.makeDirectory(this.#directory);
    await this.#removals.open();
    for (const name of (await files.list(this.#directory)) ?? []) {
      const id = name.endsWith('.json') ? name.slice(0, -'.json'.length) : '';
      if (isId(id) && !this.#removals.has(id)) this.#ids.add(id);
    }
  }

  wants(kind: JobKind): boolean {
    return reportKindOf(kind) !== undefined;
  }

  async record(ending: EndingJob): Promise<void> {
    await this.#writing.run(async () => {
      this.#owed.set(ending.job.jobId, ending);
      await this.#pay();
    });
  }

  /** Writes the reports of jobs that ended when there was no room for them, or before this program knew of reports. */
  async makeUp(ended: readonly EndingJob[]): Promise<void> {
    await this.#writing.run(async () => {
      for (const ending of ended.toReversed()) {
        const { jobId, kind } = ending.job;
        if (this.wants(kind) && this.#isMissing(jobId)) this.#owed.set(jobId, ending);
      }
      await this.#pay();
      const adoptions = endedAdoptions(this.#o.audit);
      await this.#removals.forgetBut(new Set([...ended, ...adoptions].map(({ job }) => job.jobId)));
    });
  }

  /**
   * Writes the reports of adoptions, which are no jobs: what there is to be told of them stands in the audit log. One without an end there is
   * under way: those that an earlier process has left have got theirs when the site was opened.
   */
  async ofAdoptions(): Promise<void> {
    await this.#writing.run(async () => {
      for (const ending of endedAdoptions(this.#o.audit)) {
        const { jobId } = ending.job;
        if (this.#isMissing(jobId)) this.#owed.set(jobId, ending);
      }
      await this.#pay();
    });
  }

  #isMissing(reportId: string): boolean {
    return !this.#ids.has(reportId) && !this.#removals.has(reportId);
  }

  /**
   * What retention has to know of all reports that can be read; nothing if none was begun before `ms`, so that a site whose reports are
   * all young reads none of them.
   */
  async factsIfAnyBefore(ms: number): Promise<ReportFacts[]> {
    if (![...this.#ids].some((reportId) => bornAtMs(reportId) < ms)) return [];
    const facts: ReportFacts[] = [];
    for (const reportId of [...this.#ids]) {
      if (!this.#isOpen) return [];
      try {
        facts.push(await this.#factsOf(reportId));
      } catch (error) {
        // What cannot be read is nothing that a rule could judge: the list shows it, and a person removes it.
        if (!(error instanceof Failure)) throw error;
      }
    }
    return facts;
  }

  async #factsOf(reportId: string): Promise<ReportFacts> {
    const known = this.#facts.get(reportId);
    if (known) return known;
    const signed = decodeRecord(REPORT, await this.#bytes(reportId), this.#path(reportId));
    const facts = factsOf(signed);
    this.#facts.set(reportId, facts);
    return facts;
  }

  /** Durable on return: it is not made up again either. Throws REPORT_UNKNOWN. */
  remove(reportId: string): Promise<void> {
    return this.#writing.run(async () => {
      if (!this.#ids.has(reportId)) throw unknown(reportId);
      await this.#removals.begin(reportId);
      for (const known of [this.#ids, this.#summaries, this.#facts]) known.delete(reportId);
      await this.#removals.end(reportId);
    });
  }

  /** What is left of one that is removed: enough to recognise a copy of it. Nothing, if it cannot be read. */
  async traceOf(reportId: string): Promise<Readonly<Record<string, string>>> {
    if (!this.#ids.has(reportId)) throw unknown(reportId);
    try {
      const { report } = decodeRecord(REPORT, await this.#bytes(reportId), reportId);
      const { kind, verdict, machine, plan } = report;
      return { kind, verdict, about: plan?.name ?? machine?.name ?? '', sha256: reportDigest(report) };
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      return {};
    }
  }

  /** Never rejects. */
  async #pay(): Promise<void> {
    const { alerts, clock, log } = this.#o;
    let failed: { readonly error: unknown } | undefined;
    for (const [jobId, ending] of [...this.#owed]) {
      if (!this.#isOpen) return;
      try {
        // A process that ended between the report and the end of its job has written it.
        if (!this.#ids.has(jobId)) await this.#write(ending);
        this.#owed.delete(jobId);
      } catch (error) {
        // One that cannot be written hinders no other.
        failed ??= { error };
      }
    }
    if (!failed) {
      alerts.clear(ALERT);
    } else {
      const { error } = failed;
      const jobs = [...this.#owed.keys()].join(', ');
      log.error('report.not-written', { jobs, reason: messageOf(error) });
      const said = `the reports of these jobs are not written yet: ${jobs}: ${messageOf(error)}`;
      alerts.raise(ALERT, 'critical', reportFailure('REPORT_NOT_WRITTEN', said, { cause: failureOf(error) }));
      this.#cancelAgain?.();
      this.#cancelAgain = clock.after(AGAIN_AFTER_MS, () => void this.#writing.run(() => this.#pay()));
    }
  }

  async #write(ending: EndedAct): Promise<void> {
    const { files, identity, log } = this.#o;
    const { report, pictures } = await this.#reportOf(ending);
    const { reportId } = report;
    const bytes = signReport(identity.signer, report, pictures);
    await publishFile(files, this.#path(reportId), bytes);
    this.#ids.add(reportId);
    log.info('report.written', {
      reportId,
      kind: report.kind,
      verdict: report.verdict,
      sizeBytes: bytes.length,
    });
  }

  async #reportOf(ending: EndedAct) {
    const { files, clock } = this.#o;
    const { job } = ending;
    const kind = reportKindOf(job.kind)!;
    const ownRun = kind === 'plan' ? this.#run(String(job.args.runId)) : undefined;
    const run = ownRun ?? this.#run(job.actor.replace(/^plan:/, ''));
    const failover = failoverResultOf(job);
    const found = this.#o.inventory.all().find(({ machineId }) => machineId === job.machineId);
    const name = found?.name ?? failover?.machine.name;
    const keyOf = (siteId: string) => confirmedKey(this.#o, siteId);
    const unread = this.#o.inventory.unread(job.machineId);
    const standing = { home: found?.home, replica: found?.replica, unread };
    const tried = { replica: found?.replica, unread: unread.replica };
    const evidence = await evidenceOf({ files, keyOf }, tried, failover?.attempts ?? []);
    const { attempts, pictures, missing, sources } = evidence;
    const verdict = verdictOf(job, ownRun);
    const commandAtMs = failover?.startedAtMs ?? job.createdAtMs;
    const ofMachines = ownRun ? await this.#ofMachines(ownRun) : undefined;
    const ofPlan = ownRun && ofMachines ? planFigures(ownRun, ofMachines) : undefined;
    const known = {
      commandAtMs,
      point: attempts.at(-1)?.point,
      earlierBranchIds: failover?.earlierBranchIds,
    };
    const { rpo, missing: unknownLoss } = ofPlan ?? lossOf(kind, verdict, known);
    const rtoMs = ofPlan ? ofPlan.rtoMs : failover?.rtoMs;
    const accelerator = failover?.accelerator;
    const versions = { ...(await hostVersions()), ...(accelerator ? { accelerator } : {}) };
    const right = rightOf(standing, this.#o.identity.siteId);
    const isAdopted = kind === 'adopt' ? isAtHome(standing, job.args.branchId) : undefined;
    const machine = { machineId: job.machineId, name: name ?? job.machineId };
    const report: Omit<Report, 'attachments'> = {
      ...{ reportId: job.jobId, kind, verdict, writtenAtMs: clock.wallMs() },
      ...{ site: this.#site(), request: this.#requestOf(ending, run, kind) },
      ...(kind === 'plan' ? {} : { machine }),
      confirmations: confirmationsOf(job, {
        ...{ run, isOwnRun: kind === 'plan', fenced: this.#fencedFor(ending) },
      }),
      ...(job.failure ? { failure: failureWords(job.failure) } : {}),
      timeline: timelineOf(ending, failover, ownRun),
      ...(rpo ? { rpo } : {}),
      ...(typeof rtoMs === 'number' ? { rtoMs } : {}),
      ...(failover ? { chosenBy: failover.chosenBy } : {}),
      ...(failover?.branchId ? { branchId: failover.branchId } : {}),
      ...(right ? { right } : {}),
      ...{ attempts, sources, warnings: [...(failover?.warnings ?? [])] },
      ...(ownRun && ofMachines ? { plan: planPart(ownRun, ofMachines) } : {}),
      ...(kind === 'cede' && job.result ? { outcome: job.result as Record<string, unknown> } : {}),
      ...(isAdopted === undefined ? {} : { outcome: { isAtHome: isAdopted } }),
      missing: [
        ...missing,
        ...unknownLoss,
        ...lackOfStanding(standing, kind),
        ...(kind === 'plan' && !ownRun ? ['the run of the plan, whose record is gone'] : []),
      ],
      versions: { warmsite: WARMSITE_VERSION, ...versions },
    };
    return { report, pictures };
  }

  #site(): Report['site'] {
    const { siteId, name, signingKey } = this.#o.identity;
    return { siteId, name, signingKey };
  }

  #requestOf({ job, intent }: EndedAct, run: PlanRun | undefined, kind: ReportKind): Report['request'] {
    const [entry] = this.#o.audit.list({ before: intent + 1, limit: 1 });
    const { actor, createdAtMs, startedAtMs, endedAtMs, args } = job;
    return {
      ...{ actor, askedAtMs: createdAtMs, endedAtMs: endedAtMs ?? createdAtMs, arguments: { ...args } },
      ...(run && kind !== 'plan' ? { onBehalfOf: run.actor } : {}),
      ...(run ? { planRunId: run.runId } : {}),
      ...(startedAtMs === undefined ? {} : { startedAtMs }),
      ...(entry?.sequence === intent ? { audit: { sequence: intent, hash: entry.hash } } : {}),
    };
  }

  #fencedFor({ job, intent }: EndedAct): AuditView[] {
    if (!job.args.fence) return [];
    const entries = this.#o.audit.after(intent, 'failover.fence');
    return entries.filter(({ details }) => details.jobId === job.jobId);
  }

  #run(runId: string): PlanRun | undefined {
    return this.#o.plans.runs.find((run) => run.runId === runId);
  }

  /** The reports of the machines of a run: their jobs have ended before. */
  async #ofMachines({ steps }: PlanRun) {
    const known = new Map<string, MachineReport>();
    for (const { jobId } of steps) {
      if (jobId === undefined || !this.#ids.has(jobId)) continue;
      const { report } = decodeRecord(REPORT, await this.#bytes(jobId), jobId);
      known.set(jobId, { named: { reportId: jobId, sha256: reportDigest(report) }, rpo: report.rpo });
    }
    return known;
  }

  /** The newest first, and none that is newer than, or is, `before`. */
  async list({
    before,
    limit = LISTED,
  }: {
    before?: string | undefined;
    limit?: number;
  }): Promise<ReportList> {
    const ids = [...this.#ids].sort().reverse();
    const wanted = ids.filter((id) => before === undefined || id < before);
    const reports: ReportSummary[] = [];
    const unreadable: ReportList['unreadable'] = [];
    for (const reportId of wanted.slice(0, Math.min(limit, LISTED_MAX))) {
      try {
        reports.push(await this.#summary(reportId));
      } catch (error) {
        if (!(error instanceof Failure)) throw error;
        unreadable.push({ reportId, reason: error.message });
      }
    }
    return { reports, unreadable, total: ids.length };
  }

  async #summary(reportId: string): Promise<ReportSummary> {
    const known = this.#summaries.get(reportId);
    if (known) return known;
    const bytes = await this.#bytes(reportId);
    const summary = summaryOf(decodeRecord(REPORT, bytes, this.#path(reportId)), bytes.length);
    this.#summaries.set(reportId, summary);
    return summary;
  }

  /** The file of a report, to the byte. Throws REPORT_UNKNOWN, and REPORT_DAMAGED if it is not what this site has signed. */
  async read(reportId: string): Promise<string> {
    const { identity } = this.#o;
    const bytes = await this.#bytes(reportId);
    const own = { name: identity.name, pem: identity.signingKey };
    const verification = verifyReport(bytes, [own]);
    const wrong = verification.checks.find((check) => check.wrong !== undefined)?.wrong;
    const said =
      wrong ?? (verification.signedBy === undefined ? 'it was signed with another key' : undefined);
    if (isSound(verification) && said === undefined) return bytes.toString('utf8');
    throw reportFailure(
      'REPORT_DAMAGED',
      `${this.#path(reportId)} is not what this site has signed: ${said}`,
    );
  }

  async #bytes(reportId: string): Promise<Buffer> {
    const path = this.#path(reportId);
    const isThere = isId(reportId) && !this.#removals.has(reportId);
    const bytes = isThere ? await readSmallFile(this.#o.files, path, DOCUMENT_BYTES_MAX) : undefined;
    if (bytes) return bytes;
    throw unknown(reportId);
  }

  #path(reportId: string): string {
    return join(this.#directory, `${reportId}.json`);
  }

  /** Resolves when nothing is being written any more; what is owed then is made up by the next process. */
  async close(): Promise<void> {
    this.#isOpen = false;
    this.#cancelAgain?.();
    await this.#writing.run(async () => undefined);
  }
}

function unknown(reportId: string) {
  return reportFailure('REPORT_UNKNOWN', `this site has no report ${reportId}`);
}

function failureWords({ code, message, hint }: { code: string; message: string; hint: string }) {
  return { code, message: message.slice(0, 4000), remedy: hint.slice(0, 4000) };
}

function summaryOf({ report }: SignedReport, sizeBytes: number): ReportSummary {
  const { reportId, kind, verdict, machine, plan, request, rtoMs, rpo } = report;
  const { actor, onBehalfOf, askedAtMs, startedAtMs, endedAtMs } = request;
  return {
    ...{ reportId, kind, verdict, about: plan?.name ?? machine?.name ?? '', actor: onBehalfOf ?? actor },
    ...{ startedAtMs: startedAtMs ?? askedAtMs, endedAtMs, sizeBytes },
    ...(rtoMs === undefined ? {} : { rtoMs }),
    ...(rpo === undefined ? {} : { rpoMs: rpo.ms }),
  };
}
