import type { Report, ReportedAttempt, SignedReport } from '../api/index.ts';
import {
  APPLICATION_PROOF,
  applicationProofBytes,
  BOOT_PROOF,
  bootProofBytes,
  type SignedApplicationProof,
  type SignedBootProof,
} from '../failover/index.ts';
import { isFailure, messageOf } from '../lib/errors.ts';
import { decodeRecord, type RecordHead, type RecordKind } from '../lib/records.ts';
import { keyIdOfPem, verifySignature } from '../peer/index.ts';
import { checkSignedStatement, type SignedStatement, statementBytes } from '../recovery-point/index.ts';
import { POINT_MANIFEST } from '../replica/index.ts';
import { reportFailure } from './errors.ts';
import { htmlOf, reportInHtml } from './html.ts';
import { REPORT, reportBytes, sha256 } from './record.ts';

/** A public key whose owner is known to whoever asks. */
export interface NamedKey {
  /** Where it came from, for people. */
  readonly name: string;
  readonly pem: string;
}

/** One thing that was looked at. */
export interface Check {
  readonly what: string;
  /** Why it does not hold; undefined if it does. */
  readonly wrong?: string;
}

/** What a document is worth. */
export interface Verification {
  readonly kind:
    | 'report'
    | 'report-page'
    | 'boot-proof'
    | 'application-proof'
    | 'point-statement'
    | 'unknown';
  /** What it is about, in a few words. */
  readonly about: string;
  /** Of the key that it says it was signed with. */
  readonly keyId: string | undefined;
  /** Which of the named keys that is; undefined if none of them. */
  readonly signedBy: string | undefined;
  readonly checks: readonly Check[];
  /** What in the file nobody has signed. */
  readonly unsigned: readonly string[];
  /** The report that it holds, if all checks hold. */
  readonly report?: SignedReport;
}

/** All checks hold; says nothing about whose key it is. */
export function isSound({ checks }: Pick<Verification, 'checks'>): boolean {
  return checks.every(({ wrong }) => wrong === undefined);
}

/** No document is larger. */
export const DOCUMENT_BYTES_MAX = 64 * 1024 * 1024;

/**
 * Looks at the bytes of a file by themselves: nothing is asked of a site. Never throws for what is in the file. `keys` are those that whoever asks
 * trusts; without them a report can still be shown to be whole, but not whose it is.
 */
export function verifyDocument(bytes: Uint8Array, keys: readonly NamedKey[]): Verification {
  const text = Buffer.from(bytes).toString('utf8');
  try {
    const page = reportInHtml(text);
    if (page) return verifyPage(text, page, keys);
    const { record } = JSON.parse(text) as Partial<RecordHead>;
    if (record === REPORT.record) return verifyReport(bytes, keys);
    if (record === BOOT_PROOF.record) return verifyBootProof(bytes, keys);
    if (record === APPLICATION_PROOF.record) return verifyApplicationProof(bytes, keys);
    if (record === POINT_MANIFEST.record) return verifyManifest(bytes, keys);
    return unknown(`it is a record «${String(record).slice(0, 40)}», which carries no signature known here`);
  } catch (error) {
    return unknown(text.startsWith('%PDF') ? PDF_SAID : messageOf(error));
  }
}

const PDF_SAID =
  'a PDF is a print and carries no signature that can be checked: export the report as JSON or HTML and verify that';

function unknown(wrong: string): Verification {
  const checks = [{ what: 'it is a signed document of Warmsite', wrong }];
  return { kind: 'unknown', about: '', keyId: undefined, signedBy: undefined, checks, unsigned: [] };
}

/**
 * A record, and whether its text is exactly as it is written: a byte that no signature covers is one that this finds. Throws RECORD_CORRUPT
 * and RECORD_NEWER.
 */
function readExactly<T extends object>(kind: RecordKind<T>, bytes: Uint8Array, members?: readonly string[]) {
  const value = decodeRecord(kind, bytes, 'it');
  const written = JSON.parse(Buffer.from(bytes).toString('utf8')) as RecordHead;
  const isExact = Buffer.from(`${JSON.stringify(written, null, 2)}\n`).equals(bytes);
  const expected = ['record', 'version', 'warmsite', ...(members ?? Object.keys(value))];
  const isWhole = Object.keys(written).join() === expected.join();
  const isOfVersion = members === undefined || written.version === kind.version;
  const wrong = isExact && isWhole && isOfVersion ? undefined : 'its text is not as Warmsite writes it';
  return { value, head: written, form: check('its text is as Warmsite writes it', wrong) };
}

const SIGNED_PROOF = ['proof', 'keyId', 'signature'];

function check(what: string, wrong: string | undefined): Check {
  return wrong === undefined ? { what } : { what, wrong };
}

function signatureCheck(
  what: string,
  o: {
    readonly keyId: string;
    readonly signature: string;
    readonly key: string;
    readonly signed: Uint8Array;
  },
): Check {
  const signature = Buffer.from(o.signature, 'base64');
  if (keyIdOfPem(o.key) !== o.keyId)
    return { what, wrong: 'it names another key than the one it comes with' };
  // Base64 has several texts for some bytes; one of them is written.
  if (signature.toString('base64') !== o.signature) return { what, wrong: 'its signature is misspelt' };
  return check(
    what,
    verifySignature(o.key, o.signed, signature) ? undefined : 'the signature is of other bytes',
  );
}

function namedKey(keys: readonly NamedKey[], keyId: string): NamedKey | undefined {
  return keys.find(({ pem }) => keyIdOfPem(pem) === keyId);
}

/** The inside of a report: throws RECORD_CORRUPT and RECORD_NEWER for what is none. */
export function verifyReport(bytes: Uint8Array, keys: readonly NamedKey[]): Verification {
  const {
    value: signed,
    head,
    form,
  } = readExactly(REPORT, bytes, ['report', 'keyId', 'signature', 'attachments']);
  const { report, keyId, signature, attachments } = signed;
  const key = report.site.signingKey;
  const checks = [
    form,
    check(
      'the program that wrote it is the one that it names',
      head.warmsite === report.versions.warmsite ? undefined : `it says ${report.versions.warmsite}`,
    ),
    signatureCheck(`signed by site ${report.site.name}`, {
      keyId,
      signature,
      key,
      signed: reportBytes(report),
    }),
    attachmentCheck(report, attachments),
    ...report.attempts.flatMap((attempt, index) => attemptChecks(report, attempt, index + 1)),
  ];
  return {
    ...{ kind: 'report', about: aboutOf(report), keyId, signedBy: namedKey(keys, keyId)?.name, checks },
    unsigned: [],
    ...(isSound({ checks }) ? { report: signed } : {}),
  };
}

export function aboutOf({ kind, machine, plan, verdict }: Report): string {
  return `${kind} of ${plan?.name ?? machine?.name ?? 'a machine'}: ${verdict}`;
}

function attachmentCheck(report: Report, attachments: SignedReport['attachments']): Check {
  const what = `its ${report.attachments.length} pictures are those that it names`;
  if (Object.keys(attachments).sort().join() !== report.attachments.join())
    return { what, wrong: 'others are attached than it names' };
  for (const [digest, text] of Object.entries(attachments)) {
    const bytes = Buffer.from(text, 'base64');
    if (bytes.toString('base64') !== text || sha256(bytes) !== digest)
      return { what, wrong: `picture ${digest.slice(0, 12)} is another one` };
  }
  return { what };
}

function attemptChecks(report: Report, attempt: ReportedAttempt, number: number): Check[] {
  const { bootProof, applicationProof, statement, point } = attempt;
  const key = report.site.signingKey;
  const checks: Check[] = [];
  const ofPoint = (what: string, proof: { readonly statementDigest?: unknown }) =>
    check(what, proof.statementDigest === point.statementDigest ? undefined : 'it is of another point');
  if (bootProof) {
    const { proof, ...by } = bootProof as SignedBootProof;
    const what = `boot proof of attempt ${number}`;
    checks.push(signatureCheck(what, { ...by, key, signed: bootProofBytes(proof) }));
    checks.push(ofPoint(`${what}: of the point that was tried`, proof));
    const isSeen = (proof.picture?.sha256 ?? undefined) === attempt.picture?.sha256;
    checks.push(check(`${what}: of the picture that is shown`, isSeen ? undefined : 'it names another one'));
  }
  if (applicationProof) {
    const { proof, ...by } = applicationProof as SignedApplicationProof;
    const what = `application proof of attempt ${number}`;
    checks.push(signatureCheck(what, { ...by, key, signed: applicationProofBytes(proof) }));
    checks.push(ofPoint(`${what}: of the point that was tried`, proof));
  }
  if (statement) checks.push(...statementChecks(report, attempt, statement, number));
  return checks;
}

function statementChecks(
  report: Report,
  { point }: ReportedAttempt,
  value: unknown,
  number: number,
): Check[] {
  const what = `statement of the point of attempt ${number}`;
  try {
    const { statement, ...by } = checkSignedStatement(value, what);
    const key = report.sources.find(({ siteId }) => siteId === statement.sourceSiteId)?.signingKey ?? '';
    const signed = statementBytes(statement);
    return [
      signatureCheck(`${what}: signed by the site that cut it`, { ...by, key, signed }),
      check(
        `${what}: of the point that was tried`,
        sha256(signed) === point.statementDigest && statement.pointId === point.pointId
          ? undefined
          : 'it is of another one',
      ),
    ];
  } catch (error) {
    if (!isFailure(error, 'POINT_STATEMENT_INVALID')) throw error;
    return [{ what, wrong: messageOf(error) }];
  }
}

function verifyPage(text: string, inner: Buffer, keys: readonly NamedKey[]): Verification {
  const verification = verifyReport(inner, keys);
  const { report } = verification;
  const what = 'the page shows what the signed report in it says, and nothing else';
  const same = report !== undefined && htmlOf(report, inner) === text;
  const wrong = same
    ? undefined
    : report
      ? 'the report in it is genuine; the page around it was changed, or made by another version: export it again'
      : 'the report in it is not sound';
  return { ...verification, kind: 'report-page', checks: [...verification.checks, check(what, wrong)] };
}

/** Of documents that do not carry their key. */
function verifySigned(
  kind: Verification['kind'],
  about: string,
  o: {
    readonly checks: readonly Check[];
    readonly by: { readonly keyId: string; readonly signature: string };
    readonly signed: Uint8Array;
    readonly keys: readonly NamedKey[];
    readonly unsigned: readonly string[];
  },
): Verification {
  const key = namedKey(o.keys, o.by.keyId);
  const what = 'signature';
  const signature = key
    ? signatureCheck(what, { ...o.by, key: key.pem, signed: o.signed })
    : { what, wrong: 'it does not carry its key, and none of the keys that you named is it' };
  return {
    ...{ kind, about, keyId: o.by.keyId, signedBy: key?.name },
    ...{ checks: [...o.checks, signature], unsigned: o.unsigned },
  };
}

/** Since proofs name the program within what is signed, its name outside has to be the same. */
function programCheck(head: RecordHead, named: string | undefined): Check[] {
  if (named === undefined) return [];
  return [
    check(
      'the program that wrote it is the one that it names',
      head.warmsite === named ? undefined : `it says ${named}`,
    ),
  ];
}

const HEAD_UNSIGNED = 'the name of the program that wrote it';

function verifyBootProof(bytes: Uint8Array, keys: readonly NamedKey[]): Verification {
  const { value, head, form } = readExactly(BOOT_PROOF, bytes, SIGNED_PROOF);
  const { proof, ...by } = value;
  return verifySigned('boot-proof', `boot of point ${proof.pointId}: ${proof.verdict}`, {
    ...{ checks: [form, ...programCheck(head, proof.warmsite)], by, signed: bootProofBytes(proof), keys },
    unsigned: proof.warmsite === undefined ? [HEAD_UNSIGNED] : [],
  });
}

function verifyApplicationProof(bytes: Uint8Array, keys: readonly NamedKey[]): Verification {
  const { value, head, form } = readExactly(APPLICATION_PROOF, bytes, SIGNED_PROOF);
  const { proof, ...by } = value;
  return verifySigned('application-proof', `assertions of point ${proof.pointId}: ${proof.verdict}`, {
    ...{
      checks: [form, ...programCheck(head, proof.warmsite)],
      by,
      signed: applicationProofBytes(proof),
      keys,
    },
    unsigned: proof.warmsite === undefined ? [HEAD_UNSIGNED] : [],
  });
}

function verifyManifest(bytes: Uint8Array, keys: readonly NamedKey[]): Verification {
  const { value, form } = readExactly(POINT_MANIFEST, bytes);
  const { statement, ...by }: SignedStatement = value.signed;
  const { machineName, sequence } = statement;
  const notes = Object.keys(value).filter((name) => name !== 'signed');
  return verifySigned('point-statement', `point ${sequence} of ${machineName}`, {
    ...{ checks: [form], by, signed: statementBytes(statement), keys },
    unsigned: [HEAD_UNSIGNED, ...notes],
  });
}

/** The report in a record or a page. Throws REPORT_NOT_GENUINE unless it is whole; says nothing about whose it is. */
export function readReport(bytes: Uint8Array, source: string): { signed: SignedReport; record: Buffer } {
  const record = reportInHtml(Buffer.from(bytes).toString('utf8')) ?? Buffer.from(bytes);
  const { kind, report, checks } = verifyDocument(record, []);
  if (kind === 'report' && report) return { signed: report, record };
  const wrong = checks.find((one) => one.wrong !== undefined)?.wrong ?? `it is a ${kind}`;
  throw reportFailure('REPORT_NOT_GENUINE', `${source}: ${wrong}`);
}
