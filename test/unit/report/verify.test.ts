import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { SignedReport } from '../../../src/api/index.ts';
import { htmlOf, isSound, readReport, verifyDocument } from '../../../src/report/index.ts';
import { reportBytes } from '../../../src/report/record.ts';
import {
  canonicalOf,
  SAMPLE_KEYS,
  sampleBootProof,
  sampleManifest,
  sampleReport,
} from '../../support/sample-report.ts';
import { sized } from '../../support/size.ts';

const KEYS = [
  { name: 'south', pem: SAMPLE_KEYS.site.pem },
  { name: 'north', pem: SAMPLE_KEYS.source.pem },
];

function isGood(bytes: Uint8Array): boolean {
  const verification = verifyDocument(bytes, KEYS);
  return isSound(verification) && verification.signedBy !== undefined;
}

/** Where a byte was changed and nobody has noticed; each position has one of its bits flipped. */
function unnoticed(bytes: Buffer, { from = 0, to = bytes.length, step = 1 } = {}): number[] {
  const found: number[] = [];
  const changed = Buffer.from(bytes);
  for (let position = from; position < to; position += step) {
    const at = Math.floor(position);
    const bit = 1 << (at % 8);
    changed[at]! ^= bit;
    if (isGood(changed)) found.push(at);
    changed[at]! ^= bit;
  }
  return found;
}

/** The report that somebody has changed, signed anew by somebody else, or not at all. */
function forged(change: (signed: SignedReport) => void): Buffer {
  const head = JSON.parse(sampleReport().toString('utf8')) as SignedReport;
  change(head);
  return Buffer.from(`${JSON.stringify(head, null, 2)}\n`);
}

describe('signed documents', () => {
  it('F9 are found out for any byte that was changed: report, boot proof, and what is signed of a point', () => {
    const report = sampleReport();
    const flips = sized({ what: 'F9: bytes of a report flipped', normal: 1500, full: report.length });
    for (const [bytes, step] of [
      [report, report.length / Math.min(flips, report.length)],
      [sampleBootProof().bytes, 1],
    ] as const) {
      assert.ok(isGood(bytes));
      assert.deepEqual(unnoticed(bytes, { step }), []);
      for (const shorter of [
        bytes.subarray(0, -1),
        bytes.subarray(1),
        Buffer.concat([bytes, Buffer.from(' ')]),
      ])
        assert.ok(!isGood(shorter));
    }
    const manifest = sampleManifest();
    assert.ok(isGood(manifest));
    const text = manifest.toString('utf8');
    const signed = { from: text.indexOf('"signed"'), to: text.indexOf('"publishedAtMs"') };
    assert.deepEqual(unnoticed(manifest, signed), []);
    const { unsigned } = verifyDocument(manifest, KEYS);
    assert.ok(unsigned.includes('publishedAtMs') && unsigned.includes('skewMs'), unsigned.join());
  });

  it('F9 are found out for any byte of the page that shows them', () => {
    const record = sampleReport();
    const page = Buffer.from(htmlOf(readReport(record, 'test').signed, record));
    assert.ok(isGood(page));
    const flips = sized({ what: 'F9: bytes of a page flipped', normal: 500, full: page.length });
    assert.deepEqual(unnoticed(page, { step: page.length / Math.min(flips, page.length) }), []);
    // Where one document ends and the other begins.
    const inside = page.indexOf('base64,', page.indexOf('id="signed-report"'));
    const behind = page.indexOf('save the signed record');
    for (const from of [0, inside - 40, behind - 40, page.length - 80])
      assert.deepEqual(unnoticed(page, { from, to: from + 80 }), []);
  });

  it('F9 say whose key they were signed with, and take nobody’s word for it', () => {
    const record = sampleReport();
    const verification = verifyDocument(record, KEYS);
    assert.deepEqual([verification.kind, verification.signedBy], ['report', 'south']);
    assert.equal(verification.keyId, SAMPLE_KEYS.site.signer.keyId);
    const unknown = verifyDocument(record, [{ name: 'else', pem: SAMPLE_KEYS.stranger.pem }]);
    assert.ok(isSound(unknown) && unknown.signedBy === undefined);
    // A proof does not carry its key: without one that was named it is worth nothing.
    assert.ok(!isSound(verifyDocument(sampleBootProof().bytes, [])));
    const renamed = forged((signed) => {
      signed.keyId = SAMPLE_KEYS.stranger.signer.keyId;
    });
    assert.ok(!isGood(renamed));
    const other = forged(({ attachments }) => {
      attachments['c'.repeat(64)] = 'AA==';
    });
    assert.match(JSON.stringify(verifyDocument(other, KEYS).checks), /others are attached/);
    const more = forged((signed) => Object.assign(signed, { note: 'not signed' }));
    assert.ok(!isGood(more));
    assert.throws(() => readReport(more, 'it'), { code: 'REPORT_NOT_GENUINE' });
  });

  it('F9 are what the evidence in them says: a proof or a picture of something else is found, whoever signed it', () => {
    const inside = (change: (attempt: SignedReport['report']['attempts'][number]) => void) => {
      const { report } = JSON.parse(sampleReport().toString('utf8')) as SignedReport;
      change(report.attempts[0]!);
      return verifyDocument(sampleReport({ change: { attempts: report.attempts } }), KEYS).checks.flatMap(
        ({ wrong }) => wrong ?? [],
      );
    };
    assert.deepEqual(
      inside(() => undefined),
      [],
    );
    assert.deepEqual(
      inside(({ point }) => {
        point.statementDigest = 'd'.repeat(64);
      }),
      ['it is of another point', 'it is of another one'],
    );
    assert.deepEqual(
      inside((attempt) => {
        attempt.picture = { sha256: 'e'.repeat(64), sizeBytes: 1 };
      }),
      ['it names another one'],
    );
    assert.deepEqual(
      inside(({ statement }) => {
        (statement!.statement as { sequence: number }).sequence = 6;
      }),
      ['the signature is of other bytes', 'it is of another one'],
    );
  });

  it('F9 have the bytes that docs/format.md says: another program makes the same signature', async () => {
    const { createPublicKey, verify } = await import('node:crypto');
    const { report, signature } = JSON.parse(sampleReport().toString('utf8')) as SignedReport;
    const signed = Buffer.from(`warmsite report v1\n${canonicalOf(report)}`);
    const key = createPublicKey(report.site.signingKey);
    assert.ok(verify(null, signed, key, Buffer.from(signature, 'base64')));
    // What does not depend on the version of this program.
    const fixed = { ...report, attempts: [], versions: { ...report.versions, warmsite: '0.1.0' } };
    const { signer } = SAMPLE_KEYS.site;
    assert.equal(signer.sign(reportBytes(fixed)).toString('base64'), GOLDEN);
  });

  it('F9 refuses what carries no signature, and says why', () => {
    for (const [text, said] of [
      ['%PDF-1.7\n', /a PDF is a print/],
      ['{"record":"replica"}', /«replica»/],
      ['null', /./],
      ['', /./],
      ['<!doctype html><p>nothing', /./],
    ] as const) {
      const verification = verifyDocument(Buffer.from(text), KEYS);
      assert.ok(!isSound(verification));
      assert.match(verification.checks[0]!.wrong!, said);
    }
  });
});

/** The signature of the sample by its key, which is the same in every run. */
const GOLDEN = 'z6IrmW966fDZLRkWSDx/aNI3cMiGgUhxs145HuNuhuPVBpxNHmsB8FWhDTeB5imFtCAmm3WUuPtmD91oZ4t1CA==';
