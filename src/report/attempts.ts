import type { Report, ReportedAttempt, SignedReport } from '../api/index.ts';
import { formatDuration } from '../lib/duration-text.ts';
import { html, type Markup, NOTHING, utc } from './markup.ts';

const TONES = { passed: 'good', failed: 'bad', unproven: 'open' } as const;

/** Every point that was tried: why, how it was asked, what was seen. */
export function attemptsOf({ attempts }: Report, attachments: SignedReport['attachments']): Markup {
  if (attempts.length === 0) return NOTHING;
  return html`<section aria-labelledby="attempts"><h2 id="attempts">Points tried</h2>
${attempts.map((attempt, index) => attemptOf(attempt, index + 1, attachments))}</section>
`;
}

function attemptOf(
  attempt: ReportedAttempt,
  number: number,
  attachments: SignedReport['attachments'],
): Markup {
  const { point, reason, verdict, reasons, branchId, kept, nonce, network } = attempt;
  const source =
    point.cutAtSourceMs === undefined
      ? ''
      : `; by the clock of the site that cut it ${utc(point.cutAtSourceMs)}, which differed by ${formatDuration(point.skewMs ?? 0)}`;
  return html`<article aria-labelledby="attempt-${number}"><h3 id="attempt-${number}">Attempt ${number}: point ${point.sequence}, <span class="${TONES[verdict]}">${verdict}</span></h3>
<dl class="facts"><dt>Point</dt><dd>${point.pointId}, ${point.copyType}, ${point.consistency}-consistent</dd>
<dt>Cut</dt><dd>${utc(point.cutAtMs)}${source}</dd>
<dt>Chosen because</dt><dd>${reason}</dd>
<dt>Statement of the source</dt><dd>${statementText(attempt)}</dd>
<dt>Network</dt><dd><code>${JSON.stringify(network)}</code></dd>
<dt>Word read off the screen</dt><dd>${nonce}</dd>
<dt>Branch</dt><dd>${branchId}, ${kept ? 'kept' : 'gone'}</dd>
<dt>Signed proofs inside</dt><dd>${proofsText(attempt)}</dd></dl>
${reasons.length === 0 ? NOTHING : html`<ul class="bad">${reasons.map((why) => html`<li>${why}</li>`)}</ul>`}
${probesOf(attempt)}${assertionsOf(attempt)}${pictureOf(attempt, number, attachments)}</article>
`;
}

function statementText({ statement, point }: ReportedAttempt): string {
  if (point.statementDigest === undefined) return 'the point was gone when this was written';
  return `${statement ? 'inside, signed' : 'not inside'}; SHA-256 ${point.statementDigest}`;
}

function proofsText({ bootProof, applicationProof }: ReportedAttempt): string {
  const proofs = [...(bootProof ? ['boot'] : []), ...(applicationProof ? ['application'] : [])];
  return proofs.length === 0 ? 'none' : proofs.join(', ');
}

function probesOf({ probes }: ReportedAttempt): Markup {
  if (probes.length === 0)
    return html`<p>Nothing was asked of the guest.</p>
`;
  return html`<table><caption>Probes: what the guest was asked</caption><thead><tr><th scope="col">Probe</th><th scope="col">Answer</th><th scope="col" class="number">After</th><th scope="col">Why not</th></tr></thead><tbody>
${probes.map(
  ({
    probe,
    passed,
    durationMs,
    reason,
  }) => html`<tr><th scope="row"><code>${JSON.stringify(probe)}</code></th><td class="${passed ? 'good' : 'bad'}">${passed ? '✔ passed' : '✘ failed'}</td><td class="number">${formatDuration(durationMs)}</td><td>${reason ?? ''}</td></tr>
`,
)}</tbody></table>
`;
}

function assertionsOf({ assertions }: ReportedAttempt): Markup {
  if (assertions.length === 0) return NOTHING;
  return html`<table><caption>Assertions: what the point claims of its applications</caption><thead><tr><th scope="col">Assertion</th><th scope="col">Outcome</th><th scope="col" class="number">Took</th><th scope="col">It said</th></tr></thead><tbody>
${assertions.map(({ name, outcome, tookMs, exitCode, output, reason }) => {
  const said = [reason, exitCode === undefined ? undefined : `exit code ${exitCode}`, output?.trim()];
  return html`<tr><th scope="row">${name}</th><td class="${outcome === 'held' ? 'good' : 'bad'}">${outcome}</td><td class="number">${formatDuration(tookMs)}</td><td>${said.filter(Boolean).join(': ')}</td></tr>
`;
})}</tbody></table>
`;
}

function pictureOf(
  { picture, point }: ReportedAttempt,
  number: number,
  attachments: SignedReport['attachments'],
): Markup {
  if (!picture) return NOTHING;
  const data = attachments[picture.sha256];
  const caption = html`<figcaption>Console of the guest in attempt ${number}; SHA-256 <code>${picture.sha256}</code></figcaption>`;
  if (data === undefined)
    return html`<figure>${caption}<p>The picture has ${picture.sizeBytes} bytes and is not inside.</p></figure>
`;
  return html`<figure><img alt="Console screen of the guest booted from point ${point.sequence}" src="data:image/png;base64,${data}">${caption}</figure>
`;
}
