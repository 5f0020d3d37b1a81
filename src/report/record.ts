import { createHash } from 'node:crypto';
import { type Report, SignedReport } from '../api/index.ts';
import { canonicalJson, type Json } from '../lib/canonical-json.ts';
import { encodeRecord, recordKind } from '../lib/records.ts';
import type { Signer } from '../peer/index.ts';

export const REPORT = recordKind('report', 1, SignedReport);

/** The bytes that are signed: a domain string and the canonical JSON. */
export function reportBytes(report: Report): Buffer {
  return Buffer.from(`warmsite report v1\n${canonicalJson(report as Json)}`);
}

/** What other reports name a report by: SHA-256 of the bytes that are signed, hexadecimal. */
export function reportDigest(report: Report): string {
  return sha256(reportBytes(report));
}

export function sha256(bytes: Uint8Array | string): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** The whole of a report's file. What is attached is named by its digest, and the report names all of it. */
export function signReport(
  signer: Signer,
  unsigned: Omit<Report, 'attachments'>,
  attached: readonly Uint8Array[],
): Buffer {
  const attachments = Object.fromEntries(
    attached.map((bytes) => [sha256(bytes), Buffer.from(bytes).toString('base64')]),
  );
  // Through JSON once, so that what is signed is what is read: members that are undefined go.
  const report = JSON.parse(
    JSON.stringify({ ...unsigned, attachments: Object.keys(attachments).sort() }),
  ) as Report;
  const signature = signer.sign(reportBytes(report)).toString('base64');
  return encodeRecord(REPORT, { report, keyId: signer.keyId, signature, attachments });
}
