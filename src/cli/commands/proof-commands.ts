import type { Command } from 'commander';
import type { SiteKey } from '../../api/index.ts';
import { readSmallFile } from '../../lib/files.ts';
import type { NamedKey, Verification } from '../../report/index.ts';
import { type Context, EXIT_FOUND_BAD, type Report } from '../context.ts';
import { cliFailure } from '../errors.ts';
import type { Page } from '../page.ts';
import { examples, type Runner } from './runner.ts';

const KEY_BYTES_MAX = 16 * 1024 * 1024;

const loadReports = () => import('../../report/index.ts');

export function addProofCommands(program: Command, runner: Runner): void {
  program
    .command('proof')
    .description('signed documents: reports, boot proofs, statements of points')
    .command('verify')
    .description('verify signed documents by themselves: no site and no network is asked')
    .argument(
      '<file...>',
      'reports (JSON or HTML), boot.json and application.json of points, records of points',
    )
    .option(
      '--key <file>',
      'public key of a site, PEM, as `warmsite site key` prints it; may be given again',
      (file: string, before: readonly string[] | undefined) => [...(before ?? []), file],
    )
    .option(
      '--kit <file>',
      'recovery kit of a site: its own key, and those of the sites that it was paired with',
    )
    .option('--any-key', 'whoever signed it: says that a report is whole, not whose it is')
    .addHelpText(
      'after',
      `${examples(
        'warmsite proof verify warmsite-report-01jh2v0m8v7d6e5f4g3h2j1k0m.html --key south.pem',
        'warmsite proof verify boot.json --kit /media/safe/south.kit',
      )}
Take the key from somewhere that the site cannot change: from its partner (\`warmsite site key --peer NAME\`), or from what was
written down when the site was made. The exit code is 0 only if all files are whole and signed with a key that you named.`,
    )
    .action(runner.run(verify));
}

interface VerifyOptions {
  readonly key?: readonly string[];
  readonly kit?: string;
  readonly anyKey?: boolean;
}

async function verify(context: Context, paths: readonly string[], o: VerifyOptions): Promise<Report> {
  if (!o.key && o.kit === undefined && !o.anyKey) {
    const hint =
      'Name the key with --key FILE or --kit FILE; --any-key says whether a report is whole, whoever signed it.';
    throw cliFailure('CLI_USAGE', 'whose signature is to be verified is not said', { hint });
  }
  const { DOCUMENT_BYTES_MAX, isSound, verifyDocument } = await loadReports();
  const keys = await keysOf(context, o);
  const results: (Omit<Verification, 'report'> & { readonly file: string; readonly verified: boolean })[] =
    [];
  for (const path of paths) {
    const bytes = await bytesOf(context, path, DOCUMENT_BYTES_MAX);
    const { report: _inside, ...verification } = verifyDocument(bytes, keys);
    const isGood = isSound(verification) && (verification.signedBy !== undefined || o.anyKey === true);
    results.push({ file: path, verified: isGood, ...verification });
  }
  return {
    document: results,
    print: (page) => {
      for (const result of results) printVerification(page, result);
    },
    ...(results.every(({ verified }) => verified) ? {} : { exitCode: EXIT_FOUND_BAD }),
  };
}

function printVerification(
  page: Page,
  {
    file,
    verified,
    kind,
    about,
    keyId,
    signedBy,
    checks,
    unsigned,
  }: Omit<Verification, 'report'> & {
    readonly file: string;
    readonly verified: boolean;
  },
): void {
  const isSound = checks.every(({ wrong }) => wrong === undefined);
  page.title(file).fields([
    ['verified', verified ? { text: 'yes', tone: 'good' } : { text: 'NO', tone: 'bad' }],
    ['document', about === '' ? kind : `${kind}: ${about}`],
    ['signed with', keyId],
    ['whose key', signedBy ?? { text: 'not one that you named', tone: 'warning' }],
    ['not signed', unsigned.length === 0 ? undefined : unsigned.join(', ')],
  ]);
  for (const { what, wrong } of checks) {
    if (wrong === undefined) page.line({ text: '  ok   ', tone: 'good' }, what);
    else page.line({ text: '  BAD  ', tone: 'bad' }, `${what}: ${wrong}`);
  }
  if (isSound && signedBy === undefined)
    page.line(
      { text: '  It is whole; anybody can have made it: ', tone: 'warning' },
      'compare its key with that of the site.',
    );
}

async function keysOf(context: Context, { key = [], kit }: VerifyOptions): Promise<NamedKey[]> {
  const { keyOfPem, keysOfKit } = await loadReports();
  const keys: NamedKey[] = [];
  for (const path of key) {
    const found = keyOfPem((await bytesOf(context, path, KEY_BYTES_MAX)).toString('utf8'), path);
    if (!found) {
      const hint = 'Name a file with one public Ed25519 key in PEM, as `warmsite site key` prints it.';
      throw cliFailure('CLI_FILE_INVALID', `${path} holds no public key`, { hint });
    }
    keys.push(found);
  }
  if (kit !== undefined)
    keys.push(...keysOfKit((await bytesOf(context, kit, KEY_BYTES_MAX)).toString('utf8'), kit));
  return keys;
}

async function bytesOf(context: Context, name: string, limitBytes: number): Promise<Buffer> {
  const path = context.path(name);
  const bytes = await readSmallFile(context.world.files, path, limitBytes);
  if (bytes) return bytes;
  throw cliFailure('CLI_FILE_INVALID', `there is no file ${path}`, { hint: 'Name a file that is there.' });
}

/** `site key`: how the key for `proof verify` comes out of a site. */
export function addKey(site: Command, runner: Runner): void {
  site
    .command('key')
    .description('print the public key that reports, proofs and points are signed with')
    .option('--peer <site>', 'that of a paired site, as it was pinned when the two were paired; name or id')
    .addHelpText(
      'after',
      examples('warmsite site key > south.pem', 'warmsite site key --peer south > south.pem'),
    )
    .action(
      runner.run(async (context, o: { peer?: string }) => {
        const keys = await (await context.api()).call('site.keys', {});
        const found = keys.find((key) => isMeant(key, o.peer));
        if (!found) throw cliFailure('CLI_VALUE_INVALID', `this site was never paired with ${o.peer}`);
        return {
          document: found,
          print: (page) => {
            for (const line of found.signingKey.trim().split('\n')) page.line(line);
          },
        };
      }),
    );
}

function isMeant({ whose, name, siteId }: SiteKey, peer: string | undefined): boolean {
  if (peer === undefined) return whose === 'own';
  return whose === 'peer' && (name === peer || siteId === peer);
}
