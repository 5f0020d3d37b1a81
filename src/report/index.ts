/**
 * What is left of a failover for who was not there: signed reports, their page, their print, and how all signed documents are verified.
 *
 * Nouns. A *report* tells one failover, test or run of a plan: who asked, on whose word, which points were tried, how long it took, what was lost at
 * most, what the guest answered and showed. It is a *record* with a signature of the site's key over its canonical JSON; console pictures are
 * *attachments*, named by their digests in what is signed. Signed boot proofs and point statements lie in it as they are, so that it can be checked
 * without the site. The *page* is one HTML file made from a report and nothing else, with the record inside; the *print* is that page as PDF.
 * *Verifying* a document says whether it is what was signed, and with which key; whose key that is, whoever asks has to know.
 *
 * Promised: the page is a pure function of the record, so that a page that was changed shows; whatever guests and people have said stays text in
 * it; it has no script and asks no network for anything; verifying asks nobody, and finds any byte of a report, of its page or of a proof that was
 * changed. Not promised: that a PDF proves anything by itself.
 *
 * Relied on: Ed25519 and SHA-256 of OpenSSL; a browser of Chromium's kind for PDF alone. Format: docs/format.md, «Report».
 */
export { findBrowser, printPdf } from './browser.ts';
export { REPORT_ERRORS, reportFailure } from './errors.ts';
export { htmlOf } from './html.ts';
export { keyOfPem, keysOfKit } from './keys.ts';
export { REPORT, reportDigest, sha256, signReport } from './record.ts';
export { summaryOf, titleOf } from './summary.ts';
export {
  aboutOf,
  DOCUMENT_BYTES_MAX,
  isSound,
  type NamedKey,
  readReport,
  type Verification,
  verifyDocument,
  verifyReport,
} from './verify.ts';
