import { dirname } from 'node:path';
import type { Report, ReportedAttempt, ReportedPoint } from '../../api/index.ts';
import {
  type AttemptReport,
  loadApplicationProof,
  loadBootProof,
  type PointSummary,
  readOrTell,
  type SignedBootProof,
} from '../../failover/index.ts';
import { canonicalJson, type Json } from '../../lib/canonical-json.ts';
import { type Failure, messageOf } from '../../lib/errors.ts';
import { type FileSystem, readSmallFile } from '../../lib/files.ts';
import type { Replica, ReplicaPoint } from '../../replica/index.ts';
import { sha256 } from '../../report/index.ts';

/** A larger picture is named by its digest and not attached. */
const PICTURE_BYTES_MAX = 2 * 1024 * 1024;
const PICTURE_BYTES_READ_MAX = 64 * 1024 * 1024;
/** A larger statement (one that names very many points that were missed) is named by its digest. */
const STATEMENT_BYTES_MAX = 256 * 1024;
/** What guests and people have said is cut off behind this. */
export const SAID_CHARACTERS_MAX = 4000;

/** What belongs to the attempts of a report. */
export interface Evidence {
  readonly attempts: ReportedAttempt[];
  readonly pictures: readonly Buffer[];
  readonly sources: Report['sources'];
  readonly missing: readonly string[];
}

interface EvidenceTools {
  readonly files: FileSystem;
  /** The key of a site, as this one has confirmed it. */
  readonly keyOf: (siteId: string) => string | undefined;
}

/** What the attempts were made of, as the site has it now. */
interface Tried {
  readonly replica: Replica | undefined;
  /** Why the replica that the site has cannot be read: what is in it has not gone. */
  readonly unread?: Error | undefined;
}

/** Collects what is still there of the attempts of a failover; what is not there any more, or cannot be read, is named. */
export async function evidenceOf(
  tools: EvidenceTools,
  { replica, unread }: Tried,
  reports: readonly AttemptReport[],
): Promise<Evidence> {
  const why = unread ? `which cannot be read (${unread.message}),` : 'which is gone,';
  const pictures = new Map<string, Buffer>();
  const sources = new Map<string, string>();
  const missing: string[] = [];
  const attempts: ReportedAttempt[] = [];
  for (const [index, report] of reports.entries()) {
    const lacks = (what: string) => missing.push(`${what} of attempt ${index + 1}`);
    const point = replica?.points.find(({ statement }) => statement.pointId === report.point.pointId);
    if (!point) lacks(`the signed statement of the point, ${why}`);
    const seen = await pictureOf(tools.files, report, lacks);
    if (seen && seen.sizeBytes <= PICTURE_BYTES_MAX) pictures.set(seen.sha256, seen.bytes);
    if (seen && seen.sizeBytes > PICTURE_BYTES_MAX) lacks('the console picture, which is too large,');
    const proofs =
      replica && point ? await proofsOf(tools.files, { replica, point, lacks }, report, seen?.sha256) : {};
    attempts.push({
      ...wordsOf(report),
      point: reportedPoint(report.point, point),
      ...(seen ? { picture: { sha256: seen.sha256, sizeBytes: seen.sizeBytes } } : {}),
      ...proofs,
      ...(point ? statementOf(tools, point, sources, lacks) : {}),
    });
  }
  return {
    ...{ attempts, pictures: [...pictures.values()], missing },
    sources: [...sources].map(([siteId, signingKey]) => ({ siteId, signingKey })),
  };
}

export function cut(text: string): string {
  return text.length <= SAID_CHARACTERS_MAX ? text : `${text.slice(0, SAID_CHARACTERS_MAX - 1)}…`;
}

function wordsOf(report: AttemptReport) {
  const { reason, branchId, kept, verdict, reasons, probes, nonce, assertions, network } = report;
  return {
    ...{ reason: cut(reason), branchId, kept, verdict, nonce, network },
    reasons: reasons.map(cut),
    probes: probes.map(({ reason: why, ...probe }) => ({
      ...probe,
      ...(why === undefined ? {} : { reason: cut(why) }),
    })),
    assertions: assertions.map(({ output, reason: why, ...assertion }) => ({
      ...assertion,
      ...(output === undefined ? {} : { output: cut(output) }),
      ...(why === undefined ? {} : { reason: cut(why) }),
    })),
  };
}

function reportedPoint(summary: PointSummary, point: ReplicaPoint | undefined): ReportedPoint {
  const { pointId, sequence, copyType, consistency, cutAtMs } = summary;
  return {
    ...{ pointId, sequence, copyType, consistency, cutAtMs: Math.round(cutAtMs) },
    ...(point
      ? {
          cutAtSourceMs: point.statement.cutAtMs,
          skewMs: point.manifest.skewMs,
          statementDigest: point.statementDigest,
        }
      : {}),
  };
}

async function pictureOf(
  files: FileSystem,
  { picturePath, pictureSha256 }: AttemptReport,
  lacks: (what: string) => void,
): Promise<{ bytes: Buffer; sha256: string; sizeBytes: number } | undefined> {
  if (picturePath === null) return undefined;
  let why = 'which is gone,';
  try {
    const bytes = await readSmallFile(files, picturePath, PICTURE_BYTES_READ_MAX);
    if (bytes) {
      const digest = sha256(bytes);
      if (digest === (pictureSha256 ?? digest)) return { bytes, sha256: digest, sizeBytes: bytes.length };
      why = 'which a later boot has replaced,';
    }
  } catch (error) {
    why = `which cannot be read (${messageOf(error)}),`;
  }
  lacks(`the console picture, ${why}`);
  return undefined;
}

/** Those of this very attempt: a later test of the same point has put its own in their place. */
async function proofsOf(
  files: FileSystem,
  of: {
    readonly replica: Replica;
    readonly point: ReplicaPoint;
    readonly lacks: (what: string) => void;
  },
  report: AttemptReport,
  pictureDigest: string | undefined,
): Promise<Pick<ReportedAttempt, 'bootProof' | 'applicationProof'>> {
  const { replica, point, lacks } = of;
  const { pointId } = point.statement;
  const unread = (what: string) => (_: string, failure: Failure) =>
    lacks(`the proof of ${what}, which cannot be read (${failure.message}),`);
  const readBoot = () => loadBootProof(files, replica, pointId);
  const readApplication = () => loadApplicationProof(files, replica, point);
  const isBesideThePoint =
    report.picturePath !== null && dirname(report.picturePath) === replica.layout.proofs(pointId);
  const boot = isBesideThePoint ? await readOrTell(pointId, unread('the boot'), readBoot) : undefined;
  const isOwn = boot?.proof.picture?.sha256 === pictureDigest && isOfBoot(boot, report);
  const application =
    report.assertions.length > 0
      ? await readOrTell(pointId, unread('the application'), readApplication)
      : undefined;
  return {
    ...(boot && isOwn ? { bootProof: boot } : {}),
    ...(application && same(application.proof.assertions, report.assertions)
      ? { applicationProof: application }
      : {}),
  };
}

function isOfBoot(boot: SignedBootProof | undefined, { probes, reasons, verdict }: AttemptReport): boolean {
  const proof = boot?.proof;
  return (
    proof !== undefined &&
    proof.verdict === verdict &&
    same(proof, { probes, reasons }, ['probes', 'reasons'])
  );
}

function same(a: object, b: object, members?: readonly string[]): boolean {
  const plain = (value: object) => {
    const json = JSON.parse(JSON.stringify(value)) as Json & Record<string, Json>;
    return canonicalJson(members ? members.map((name) => json[name] ?? null) : json);
  };
  return plain(a) === plain(b);
}

function statementOf(
  { keyOf }: EvidenceTools,
  { manifest }: ReplicaPoint,
  sources: Map<string, string>,
  lacks: (what: string) => void,
): Pick<ReportedAttempt, 'statement'> {
  // What the TPM held goes to nobody who reads reports; its digest is signed, and is enough to check the signature.
  const { tpmState: _keys, ...signed } = manifest.signed;
  const { sourceSiteId } = signed.statement;
  const key = keyOf(sourceSiteId);
  if (key === undefined) lacks('the signed statement of the point, whose key is not confirmed,');
  else if (JSON.stringify(signed).length > STATEMENT_BYTES_MAX)
    lacks('the signed statement of the point, which is too large,');
  else {
    sources.set(sourceSiteId, key);
    return { statement: signed };
  }
  return {};
}
