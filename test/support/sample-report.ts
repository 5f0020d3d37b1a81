import type { Report } from '../../src/api/index.ts';
import { type BootProof, bootProofBytes } from '../../src/failover/index.ts';
import { canonicalJson, type Json } from '../../src/lib/canonical-json.ts';
import { WARMSITE_VERSION } from '../../src/lib/records.ts';
import { newPrivateKey, publicPem, signerOf } from '../../src/peer/keys.ts';
import { type PointStatement, statementBytes, statementDigest } from '../../src/recovery-point/index.ts';
import { sha256, signReport } from '../../src/report/index.ts';

const SITE = '01jh2v0m8v7d6e5f4g3h2j1k0m';
const SOURCE = '01jh2v0m8v7d6e5f4g3h2j1k0n';
const POINT = '01jh2v0m8v7d6e5f4g3h2j1k0p';

function keyOf(byte: number) {
  const key = newPrivateKey({ bytes: (count) => Buffer.alloc(count, byte) });
  return { signer: signerOf(key), pem: publicPem(key) };
}

/** Keys that are the same in every run. */
export const SAMPLE_KEYS = { site: keyOf(7), source: keyOf(9), stranger: keyOf(11) };

/** One pixel. */
const PICTURE = Buffer.from(
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg==',
  'base64',
);

function sampleStatement(): PointStatement {
  return {
    ...{ version: 1, machineId: SITE, machineName: 'db', sourceSiteId: SOURCE, pointId: POINT, sequence: 5 },
    ...{ epoch: 1, parent: null, copyType: 'crash', consistency: 'crash', cutAtMs: 1_000, pauseMs: 3 },
    ...{ digest: 'sha256', blockBytes: 65_536, missed: [], configuration: { name: 'db' } },
    disks: [{ diskId: 'disk0', sizeBytes: 1024, root: '0'.repeat(64), changedBytes: 512 }],
  } as PointStatement;
}

/** A boot proof as it lies beside a point, and the bytes of its file. */
export function sampleBootProof() {
  const proof: BootProof = {
    ...{
      pointId: POINT,
      statementDigest: statementDigest(sampleStatement()),
      verdict: 'passed',
      reasons: [],
    },
    ...{ startedAtMs: 2_000, rtoMs: 1_500.5, accelerator: 'tcg', network: 'unplugged', nonce: 'read' },
    probes: [{ probe: { kind: 'agent' }, passed: true, durationMs: 1_200 }],
    picture: { name: 'console.png', sha256: sha256(PICTURE) },
    warmsite: WARMSITE_VERSION,
  };
  const { signer } = SAMPLE_KEYS.site;
  const signed = {
    proof,
    keyId: signer.keyId,
    signature: signer.sign(bootProofBytes(proof)).toString('base64'),
  };
  const head = { record: 'boot-proof', version: 1, warmsite: WARMSITE_VERSION };
  return { signed, bytes: Buffer.from(`${JSON.stringify({ ...head, ...signed }, null, 2)}\n`) };
}

/** A record `point`, with what its receiver has noted. */
export function sampleManifest(): Buffer {
  const statement = sampleStatement();
  const { signer } = SAMPLE_KEYS.source;
  const signature = signer.sign(statementBytes(statement)).toString('base64');
  const head = { record: 'point', version: 1, warmsite: WARMSITE_VERSION };
  const signed = { statement, keyId: signer.keyId, signature };
  const notes = { publishedAtMs: 1_500, cutAtHereMs: 990, skewMs: 10, receivedBytes: 4096 };
  return Buffer.from(`${JSON.stringify({ ...head, signed, ...notes }, null, 2)}\n`);
}

/** A report of a test with a picture, a boot proof and a statement; `said` is what guest and people have said. */
export function sampleReport(o: { said?: string; change?: Partial<Report> } = {}): Buffer {
  const { said = 'agent answered', change = {} } = o;
  const { site, source } = SAMPLE_KEYS;
  const statement = sampleStatement();
  const signature = source.signer.sign(statementBytes(statement)).toString('base64');
  const report: Omit<Report, 'attachments'> = {
    ...{ reportId: '01jh2v0m8v7d6e5f4g3h2j1k0q', kind: 'test', verdict: 'passed', writtenAtMs: 5_000 },
    site: { siteId: SITE, name: 'south', signingKey: site.pem },
    machine: { machineId: SITE, name: said },
    request: {
      ...{ actor: 'operator:default', askedAtMs: 2_000, startedAtMs: 2_000, endedAtMs: 4_500 },
      ...{ arguments: { keep: false, name: said }, audit: { sequence: 3, hash: 'a'.repeat(64) } },
    },
    confirmations: [{ what: 'approval', by: said, atMs: 1_900, machine: 'db', question: said }],
    failure: { code: 'EXAMPLE', message: said },
    timeline: [{ name: said, beganAtMs: 2_000, durationMs: 1_200, attempt: 1 }],
    ...{ rpo: { ms: 1_010, basis: 'age', skewMs: 10 }, rtoMs: 1_500.5, chosenBy: 'person' },
    right: { epoch: 1, state: 'follows', siteId: SOURCE },
    attempts: [
      {
        point: {
          ...{ pointId: POINT, sequence: 5, copyType: 'crash', consistency: 'crash', cutAtMs: 990 },
          ...{ cutAtSourceMs: 1_000, skewMs: 10, statementDigest: statementDigest(statement) },
        },
        ...{ reason: said, branchId: SITE, kept: false, verdict: 'passed', reasons: [said], nonce: 'read' },
        probes: [{ probe: { kind: 'agent' }, passed: true, durationMs: 1_200, reason: said }],
        assertions: [{ name: said, outcome: 'held', tookMs: 3, exitCode: 0, output: said }],
        network: { kind: 'unplugged', reason: said },
        picture: { sha256: sha256(PICTURE), sizeBytes: PICTURE.length },
        bootProof: sampleBootProof().signed,
        statement: { statement, keyId: source.signer.keyId, signature },
      },
    ],
    plan: {
      ...{ name: 'shop', runId: SITE, mode: 'test', documentSha256: 'b'.repeat(64) },
      steps: [{ machine: said, state: 'done', reason: said }],
    },
    ...{ warnings: [said], missing: [said], sources: [{ siteId: SOURCE, signingKey: source.pem }] },
    versions: { warmsite: WARMSITE_VERSION, node: 'v24', hypervisor: said, host: 'Linux' },
    ...change,
  };
  return signReport(site.signer, report, [PICTURE]);
}

/** The text that a record's signature is of, without its first line. */
export function canonicalOf(value: unknown): string {
  return canonicalJson(value as Json);
}
