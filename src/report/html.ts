import { createHash } from 'node:crypto';
import type { Report, ReportVerdict, SignedReport } from '../api/index.ts';
import { formatDuration } from '../lib/duration-text.ts';
import { attemptsOf } from './attempts.ts';
import { html, type Markup, NOTHING, utc } from './markup.ts';
import { reportDigest } from './record.ts';
import { STYLE } from './style.ts';
import { isRehearsal, summaryOf, titleOf } from './summary.ts';
import { timelineOf } from './timeline.ts';

const VERDICTS: Readonly<Record<ReportVerdict, { readonly tone: string; readonly text: string }>> = {
  passed: { tone: 'good', text: '✔ Passed' },
  unproven: { tone: 'open', text: '○ Unproven: nothing was asked of the guest' },
  partly: { tone: 'open', text: '◐ Partly: some machines are up' },
  failed: { tone: 'bad', text: '✘ Failed' },
  cancelled: { tone: 'open', text: '○ Cancelled' },
  interrupted: { tone: 'bad', text: '✘ Interrupted' },
};

const EVIDENCE_HEAD = '<a id="signed-report" download="';
const EVIDENCE =
  /<a id="signed-report" download="[a-z0-9-]+\.json" href="data:application\/json;base64,([A-Za-z0-9+/]+=*)">/;

/**
 * A report as one page that needs nothing else: no script, no other file, pictures and the signed record inside. A pure function of its arguments,
 * so that whoever has the record can make the same page again; `bytes` is the file of the record.
 */
export function htmlOf({ report, keyId, signature, attachments }: SignedReport, bytes: Uint8Array): string {
  const { tone, text } = VERDICTS[report.verdict];
  const style = createHash('sha256').update(STYLE).digest('base64');
  const page = html`<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="Warmsite">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'sha256-`;
  const rest = html`<title>${titleOf(report)}: ${report.verdict}</title>
`;
  const body = html`</head>
<body>
<header>
<p class="kicker">Warmsite · site ${report.site.name} · ${utc(report.request.endedAtMs)}</p>
<h1>${titleOf(report)}</h1>
<p class="verdict ${tone}">${text}</p>
<p class="summary">${summaryOf(report)}</p>
</header>
<main>
${figuresOf(report)}${failureOf(report)}${warningsOf(report)}${factsOf(report)}${confirmationsOf(report)}${stepsOf(report)}${timelineOf(report.timeline)}${attemptsOf(report, attachments)}${versionsOf(report)}${evidenceOf(report, keyId, signature, bytes)}</main>
<footer>Written by site ${report.site.name} (${report.site.siteId}) at ${utc(report.writtenAtMs)}. Texts of guests and people are shown as they were said. All times are those of this site's clock, in UTC.</footer>
</body>
</html>
`;
  return `<!doctype html>\n${page.text}${style}'">\n${rest.text}<style>${STYLE}</style>\n${body.text}`;
}

/** The signed record that a page of `htmlOf` holds; undefined for any other text. */
export function reportInHtml(text: string): Buffer | undefined {
  if (!text.startsWith('<!doctype html>')) return undefined;
  const found = EVIDENCE.exec(text.slice(Math.max(0, text.indexOf(EVIDENCE_HEAD))));
  return found ? Buffer.from(found[1]!, 'base64') : undefined;
}

function figuresOf(report: Report): Markup {
  const { rpo, rtoMs, request, attempts, kind } = report;
  const point = attempts.at(-1)?.point;
  const isTest = isRehearsal(report);
  return html`<dl class="figures">${[
    rtoMs === undefined
      ? NOTHING
      : html`<div><dt>RTO measured</dt><dd>${formatDuration(rtoMs)}</dd><dd class="note">from the command ${kind === 'plan' ? 'until the last machine was up, with all that was waited for' : 'to the last answer of the guest'}</dd></div>`,
    rpo === undefined
      ? NOTHING
      : html`<div><dt>${isTest ? 'RPO, had it been real' : 'RPO'}</dt><dd>${rpo.basis === 'nothing-lost' ? '0' : formatDuration(rpo.ms)}</dd><dd class="note">${rpoNote(rpo)}</dd></div>`,
    point === undefined
      ? NOTHING
      : html`<div><dt>Recovery point</dt><dd>${point.sequence}</dd><dd class="note">${point.consistency}-consistent, cut ${utc(point.cutAtMs)}</dd></div>`,
    html`<div><dt>Took in all</dt><dd>${formatDuration(Math.max(0, request.endedAtMs - (request.startedAtMs ?? request.askedAtMs)))}</dd><dd class="note">until nothing was left to do</dd></div>`,
  ]}</dl>
`;
}

function rpoNote({ basis, skewMs }: NonNullable<Report['rpo']>): string {
  if (basis === 'nothing-lost') return 'the machine had ended; this is all that it wrote';
  const clocks =
    skewMs === undefined
      ? ''
      : `; the clock of the site that cut it was ${formatDuration(Math.abs(skewMs))} ${skewMs < 0 ? 'behind' : 'ahead'}, which is corrected`;
  return `age of the point when the command was given, by this site's clock${clocks}`;
}

function failureOf({ failure }: Report): Markup {
  if (!failure) return NOTHING;
  return html`<section aria-labelledby="failure"><h2 id="failure">What went wrong</h2>
<p class="bad"><strong>${failure.code}</strong>: ${failure.message}</p>
${failure.remedy === undefined ? NOTHING : html`<p>${failure.remedy}</p>`}</section>
`;
}

function warningsOf({ warnings, missing }: Report): Markup {
  if (warnings.length + missing.length === 0) return NOTHING;
  return html`<section aria-labelledby="warnings"><h2 id="warnings">To be known</h2>
<ul>${warnings.map((warning) => html`<li>${warning}</li>`)}${missing.map((what) => html`<li>Not in this report: ${what}</li>`)}</ul></section>
`;
}

function factsOf(report: Report): Markup {
  const { machine, plan, site, request, right, branchId, chosenBy, outcome } = report;
  const facts: readonly (readonly [string, string | undefined])[] = [
    ['Machine', machine && `${machine.name} (${machine.machineId})`],
    [
      'Plan',
      plan && `${plan.name}, run ${plan.runId}, ${plan.mode}; SHA-256 of the plan ${plan.documentSha256}`,
    ],
    ['Site', `${site.name} (${site.siteId})`],
    ['Asked for by', request.actor],
    ['On behalf of', request.onBehalfOf],
    ['Asked', utc(request.askedAtMs)],
    ['Began', request.startedAtMs === undefined ? 'never' : utc(request.startedAtMs)],
    ['Ended', utc(request.endedAtMs)],
    ['Asked for', JSON.stringify(request.arguments)],
    ['Point chosen by', chosenBy === 'person' ? 'a person' : chosenBy && 'the site'],
    ['Running branch', branchId],
    ['Right to run it', right && rightText(right)],
    ['Outcome', outcome && JSON.stringify(outcome)],
    ['Audit log', request.audit && `entry ${request.audit.sequence}, hash ${request.audit.hash}`],
  ];
  return html`<section aria-labelledby="facts"><h2 id="facts">Facts</h2>
${factList(facts)}</section>
`;
}

function rightText({ epoch, state, siteId }: NonNullable<Report['right']>): string {
  const claim = siteId === undefined ? '' : `, claimed by site ${siteId}`;
  return `epoch ${epoch}${claim}${state === undefined ? '' : `; this site ${state}`}`;
}

function factList(facts: readonly (readonly [string, string | undefined])[]): Markup {
  const shown = facts.filter(([, value]) => value !== undefined);
  return html`<dl class="facts">${shown.map(
    ([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>
`,
  )}</dl>`;
}

const SAID: Readonly<Record<Report['confirmations'][number]['what'], string>> = {
  'other-side-down': 'the other site is down, and the machine runs there no more',
  fenced: 'a program should make sure that the other site is down, and it has',
  votes: 'this site has the right to run the machine',
  'power-off': "the guest's power may be cut",
  approval: 'the machine may start',
};

function confirmationsOf({ confirmations }: Report): Markup {
  if (confirmations.length === 0) return NOTHING;
  return html`<section aria-labelledby="words"><h2 id="words">Confirmations and approvals</h2>
<table><thead><tr><th scope="col">Who</th><th scope="col">When</th><th scope="col">Said that</th></tr></thead><tbody>
${confirmations.map(({ what, by, atMs, machine, question, program, output = '' }) => {
  const printed = output.trim() === '' ? 'printed nothing' : `printed: ${output.trim()}`;
  const about = [machine, question && `asked: ${question}`, program && `${program} ${printed}`]
    .filter((part) => part !== undefined)
    .join('; ');
  return html`<tr><th scope="row">${by}</th><td class="time">${atMs === undefined ? 'not recorded' : utc(atMs)}</td><td>${SAID[what]}${about === '' ? '' : ` (${about})`}</td></tr>
`;
})}</tbody></table></section>
`;
}

function stepsOf({ plan }: Report): Markup {
  if (!plan) return NOTHING;
  return html`<section aria-labelledby="machines"><h2 id="machines">Machines of the plan</h2>
<table><thead><tr><th scope="col">Machine</th><th scope="col">State</th><th scope="col">Began</th><th scope="col" class="number">Took</th><th scope="col">Its own report</th></tr></thead><tbody>
${plan.steps.map((step) => {
  const { machine, state, beganAtMs, endedAtMs, reason, report, sequence } = step;
  const took =
    beganAtMs === undefined || endedAtMs === undefined
      ? ''
      : formatDuration(Math.max(0, endedAtMs - beganAtMs));
  const said = [sequence === undefined ? undefined : `point ${sequence}`, reason].filter(
    (part) => part !== undefined,
  );
  const own =
    report === undefined
      ? 'none'
      : html`<code>${report.reportId}</code>, SHA-256 <code>${report.sha256}</code>`;
  return html`<tr><th scope="row">${machine}</th><td class="${state === 'done' ? 'good' : 'bad'}">${[state, ...said].join('; ')}</td><td class="time">${beganAtMs === undefined ? '' : utc(beganAtMs)}</td><td class="number">${took}</td><td>${own}</td></tr>
`;
})}</tbody></table></section>
`;
}

function versionsOf({ versions }: Report): Markup {
  const { warmsite, node, hypervisor, accelerator, host } = versions;
  return html`<section aria-labelledby="versions"><h2 id="versions">Versions</h2>
${factList([
  ['Warmsite', warmsite],
  ['Hypervisor', hypervisor ?? 'could not be asked'],
  ['Accelerator', accelerator],
  ['Host', host],
  ['Node', node],
])}</section>
`;
}

function evidenceOf(report: Report, keyId: string, signature: string, bytes: Uint8Array): Markup {
  const name = `warmsite-report-${report.reportId}.json`;
  const data = Buffer.from(bytes).toString('base64');
  return html`<section aria-labelledby="evidence"><h2 id="evidence">Signature, and how to verify it</h2>
<p>The signed record that this page was made from is inside it: <a id="signed-report" download="${name}" href="data:application/json;base64,${data}">save the signed record</a>. Verify page or record on any machine, without a site and without a network, with the public key of the site, taken from somewhere that the site cannot change:</p>
<pre>warmsite proof verify ${name} --key ${report.site.name.replaceAll(/[^A-Za-z0-9._-]+/g, '-')}.pem</pre>
<p>The key is printed by <code>warmsite site key</code> at the site, and as its partner has pinned it by <code>warmsite site key --peer NAME</code> at the other one. A print on paper proves nothing by itself: compare the digest below with that of the record.</p>
${factList([
  ['Report', report.reportId],
  ['SHA-256 of what is signed', reportDigest(report)],
  ['Signed with key', keyId],
  ['Signature (Ed25519)', signature],
  ['Pictures', report.attachments.length === 0 ? 'none' : report.attachments.join(', ')],
])}<h3>Public key of the site, as it names it itself</h3><pre>${keyLines(report.site.signingKey)}</pre></section>
`;
}

function keyLines(pem: string): Markup[] {
  return pem
    .trim()
    .split('\n')
    .map(
      (line) => html`${line}
`,
    );
}
