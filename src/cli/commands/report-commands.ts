import { tmpdir } from 'node:os';
import type { Command } from 'commander';
import type { ReportSummary } from '../../api/index.ts';
import { type FileSystem, readSmallFile } from '../../lib/files.ts';
import type { Context, Report } from '../context.ts';
import { cliFailure } from '../errors.ts';
import { formatBytes, formatDuration, formatTime } from '../format.ts';
import type { Page, Tone } from '../page.ts';
import { invalid, named, parseCount, parseDuration, parseWord } from '../values.ts';
import { examples, type Runner } from './runner.ts';

const FORMATS = ['json', 'html', 'pdf'] as const;
const LISTED_MAX = 1000;
const FILE_BYTES_MAX = 64 * 1024 * 1024;

/** Reading and verifying needs parts of the engine; who does neither is not to wait for them. */
const loadReports = () => import('../../report/index.ts');

export function addReportCommands(program: Command, runner: Runner): void {
  const report = program
    .command('report')
    .description('signed reports of failovers, tests and runs of plans: what an auditor asks for');
  report
    .command('list')
    .description('the reports of this site, the newest first')
    .option(
      '--limit <count>',
      `so many (default: 100, at most ${LISTED_MAX})`,
      named('--limit', (text) => parseCount(text, 1, LISTED_MAX)),
    )
    .option('--before <report>', 'only those before this one: to go on where the last list ended')
    .addHelpText('after', examples('warmsite report list', 'warmsite report list --limit 1000 --json'))
    .action(runner.run(list));
  report
    .command('show')
    .description('a report in short')
    .argument('<report>', 'id of a report, which is that of its job; or the file of one')
    .addHelpText('after', examples('warmsite report show 01jh2v0m8v7d6e5f4g3h2j1k0m'))
    .action(runner.run(show));
  report
    .command('export')
    .description('write a report to a file: the signed record, one page of HTML, or a PDF')
    .argument('<report>', 'id of a report; or the file of one, for which no site is needed')
    .option(
      '--format <format>',
      FORMATS.join(', '),
      named('--format', (text) => parseWord(text, FORMATS)),
      'html',
    )
    .option('--output <file>', 'file to write; it must not exist (default: warmsite-report-ID.FORMAT)')
    .option('--browser <path>', 'for a PDF: a browser of the kind of Chromium (default: the one on the path)')
    .addHelpText(
      'after',
      `${examples(
        'warmsite report export 01jh2v0m8v7d6e5f4g3h2j1k0m',
        'warmsite report export 01jh2v0m8v7d6e5f4g3h2j1k0m --format pdf --output drill.pdf',
        'warmsite report export warmsite-report-01jh2v0m8v7d6e5f4g3h2j1k0m.json --format html',
      )}
JSON is the signed record; the page has it inside. Both are verified by \`warmsite proof verify\`; a PDF is a print of the page.`,
    )
    .action(runner.run(exportReport));
  report
    .command('remove')
    .description('remove reports from this site for good, whatever they are about')
    .argument('<report...>', 'ids of reports')
    .option('--discard', 'your word that nobody will ask for them, or that they are kept elsewhere')
    .addHelpText(
      'after',
      `${examples('warmsite report remove 01jh2v0m8v7d6e5f4g3h2j1k0m')}
The audit log keeps who has done it, and the digest of each: a copy can be recognised by that. Proofs beside points stay.`,
    )
    .action(runner.run(remove));
  report
    .command('policy')
    .description('show or change how long reports are kept')
    .option(
      '--keep-tests <time>',
      'reports of tests, drills and rehearsals, from 1d; or always',
      named('--keep-tests', parseKeep),
    )
    .addHelpText(
      'after',
      `${examples('warmsite report policy', 'warmsite report policy --keep-tests 90d', 'warmsite report policy --keep-tests always')}
Whatever their age, of each machine and each plan the newest report of a test stays and the newest that passed, and all of points that
are still here. All other reports, of failovers and what changed the right to run a machine, stay until somebody removes them.`,
    )
    .action(runner.run(policy));
}

const KEEP_MS_MIN = 86_400_000;

/** A time, or `always`. */
function parseKeep(text: string): number | 'always' {
  if (text === 'always') return text;
  const ms = parseDuration(text);
  if (ms >= KEEP_MS_MIN) return ms;
  throw invalid(text, 'a time of at least 1d, such as 90d; or always');
}

async function list(context: Context, o: { limit?: number; before?: string }): Promise<Report> {
  const query = {
    ...(o.limit === undefined ? {} : { limit: String(o.limit) }),
    ...(o.before === undefined ? {} : { before: o.before }),
  };
  const found = await (await context.api()).call('report.list', { query });
  return {
    document: found,
    print: (page) => {
      if (found.total === 0) page.line('This site has no reports yet: a test failover leaves one.');
      else printList(page, found.reports);
      if (found.reports.length < found.total)
        page.line('').line(`${found.reports.length} of ${found.total} are shown.`);
      for (const { reportId, reason } of found.unreadable)
        page.line({ text: `${reportId} cannot be read: ${reason}`, tone: 'bad' });
    },
  };
}

const TONES: Readonly<Record<ReportSummary['verdict'], Tone>> = {
  passed: 'good',
  unproven: 'warning',
  partly: 'warning',
  failed: 'bad',
  cancelled: 'warning',
  interrupted: 'bad',
};

function printList(page: Page, reports: readonly ReportSummary[]): void {
  page.table(
    [
      ...[{ head: 'report' }, { head: 'kind' }, { head: 'about' }, { head: 'verdict' }],
      ...([
        { head: 'RTO', align: 'right' },
        { head: 'RPO', align: 'right' },
      ] as const),
      ...[{ head: 'by' }, { head: 'began' }],
    ],
    reports.map(({ reportId, kind, about, verdict, rtoMs, rpoMs, actor, startedAtMs }) => [
      ...[reportId, kind, about, { text: verdict, tone: TONES[verdict] }],
      ...[rtoMs, rpoMs].map((ms) => (ms === undefined ? undefined : formatDuration(ms))),
      ...[actor, formatTime(startedAtMs)],
    ]),
  );
}

async function show(context: Context, reference: string): Promise<Report> {
  const { titleOf, summaryOf } = await loadReports();
  const { signed, record } = await reportMeant(context, reference);
  const { report, keyId } = signed;
  const { request, rtoMs, rpo, confirmations, warnings, missing } = report;
  return {
    document: signed,
    print: (page) => {
      page
        .title(titleOf(report))
        .line(summaryOf(report))
        .fields([
          ['verdict', { text: report.verdict, tone: TONES[report.verdict] }],
          ['asked for by', request.onBehalfOf ?? request.actor],
          ['began', formatTime(request.startedAtMs ?? request.askedAtMs)],
          ['RTO measured', rtoMs === undefined ? undefined : formatDuration(rtoMs)],
          ['RPO', rpo && (rpo.basis === 'nothing-lost' ? 'nothing lost' : formatDuration(rpo.ms))],
          ['confirmed by', confirmations.map(({ by }) => by).join(', ') || undefined],
          ['points tried', report.attempts.map(({ point }) => point.sequence).join(', ') || undefined],
          ['pictures', String(report.attachments.length)],
          ['signed with', keyId],
          ['size', formatBytes(record.length)],
        ]);
      for (const warning of warnings) page.line({ text: 'Warning: ', tone: 'warning' }, warning);
      for (const what of missing) page.line({ text: 'Not in it: ', tone: 'warning' }, what);
      page.line('').line(`For an auditor: warmsite report export ${report.reportId}`);
    },
  };
}

async function remove(
  context: Context,
  reports: readonly string[],
  o: { readonly discard?: true },
): Promise<Report> {
  const which = reports.length === 1 ? `Report ${reports[0]}` : `${reports.length} reports`;
  if (!o.discard) {
    await context.confirm({
      question: `${which} would be gone from this site for good.`,
      word: 'remove',
      option: '--discard',
    });
  }
  const api = await context.api();
  for (const report of reports) await api.call('report.remove', { params: { report } });
  const verb = reports.length === 1 ? 'is' : 'are';
  return { document: { removed: reports }, print: (page) => page.line(`${which} ${verb} gone.`) };
}

async function policy(context: Context, o: { readonly keepTests?: number | 'always' }): Promise<Report> {
  const { keepTests } = o;
  const api = await context.api();
  const kept =
    keepTests === undefined
      ? await api.call('report.policy', {})
      : await api.call('report.changePolicy', {
          body: { keepTestsMs: keepTests === 'always' ? null : keepTests },
        });
  const always = 'until somebody removes them';
  return {
    document: kept,
    print: (page) =>
      page.fields([
        [
          'tests, drills, rehearsals',
          kept.keepTestsMs === undefined ? always : formatDuration(kept.keepTestsMs),
        ],
        ['all others', always],
      ]),
  };
}

interface ExportOptions {
  readonly format: (typeof FORMATS)[number];
  readonly output?: string;
  readonly browser?: string;
}

async function exportReport(context: Context, reference: string, o: ExportOptions): Promise<Report> {
  const { files } = context.world;
  const { signed, record } = await reportMeant(context, reference);
  const { reportId } = signed.report;
  const path = context.path(o.output ?? `warmsite-report-${reportId}.${o.format}`);
  await refuseExisting(files, path);
  const bytes = await exported(context, o, signed, record);
  const handle = await files.open(path, 'create');
  try {
    await handle.write(bytes, 0);
    await handle.sync();
  } finally {
    await handle.close();
  }
  return {
    document: { reportId, format: o.format, path, sizeBytes: bytes.length },
    print: (page) => {
      page.line(`Report ${reportId} is in ${path} (${formatBytes(bytes.length)}).`);
      if (o.format === 'pdf')
        page.line('It is a print: what can be verified is the record, --format json or html.');
      else page.line(`Verify it anywhere: warmsite proof verify ${path} --key SITE.pem`);
    },
  };
}

async function exported(
  { world }: Context,
  { format, browser }: ExportOptions,
  signed: Parameters<Awaited<ReturnType<typeof loadReports>>['htmlOf']>[0],
  record: Buffer,
): Promise<Buffer> {
  const { htmlOf, findBrowser, printPdf } = await loadReports();
  if (format === 'json') return record;
  const page = htmlOf(signed, record);
  if (format === 'html') return Buffer.from(page);
  const { environment } = world;
  const named = browser ?? (environment.WARMSITE_BROWSER || undefined);
  const found = await findBrowser(named, environment.PATH ?? '/usr/bin:/bin');
  return printPdf(world, { page, browser: found, scratchDirectory: tmpdir() });
}

/** By its id from the site, or from a file that somebody has kept. */
async function reportMeant(context: Context, reference: string) {
  const { readReport } = await loadReports();
  if (/^[0-9a-z]{26}$/.test(reference)) {
    const { text } = await (await context.api()).call('report.show', { params: { report: reference } });
    return readReport(Buffer.from(text), `report ${reference}`);
  }
  const path = context.path(reference);
  const bytes = await readSmallFile(context.world.files, path, FILE_BYTES_MAX);
  if (bytes) return readReport(bytes, path);
  throw cliFailure('CLI_FILE_INVALID', `there is no file ${path}`, {
    hint: 'Name a report by its id (`warmsite report list`), or the file of one.',
  });
}

async function refuseExisting(files: FileSystem, path: string): Promise<void> {
  if ((await files.sizeOf(path)) === undefined) return;
  throw cliFailure('CLI_FILE_EXISTS', `${path} exists already`, { context: { path } });
}
