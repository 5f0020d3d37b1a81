import { dirname } from 'node:path';
import type { Command } from 'commander';
import { type FileSystem, readSmallFile } from '../../lib/files.ts';
import { hostPort } from '../../lib/host-port.ts';
import { type Context, EXIT_FOUND_BAD, type Report } from '../context.ts';
import { cliFailure } from '../errors.ts';
import { formatDuration, formatTime } from '../format.ts';
import { named, parseDuration, parsePort, parseWord } from '../values.ts';
import { printPeers, printSite } from '../views/site-view.ts';
import { LOG_LEVELS, type LogLevel } from '../world.ts';
import { addPeerCommands } from './peer-commands.ts';
import { addKey } from './proof-commands.ts';
import { examples, type Runner } from './runner.ts';

const KIT_BYTES_MAX = 16 * 1024 * 1024;

interface InitOptions {
  readonly name?: string;
  readonly peerPort?: number;
  readonly apiPort?: number;
  readonly host?: string;
  readonly fromKit?: string;
  readonly kitTo?: string;
}

export function addSiteCommands(program: Command, runner: Runner): void {
  const site = program.command('site').description('this site: create, serve, pair, rebuild');
  addInit(site, runner);
  addServe(site, runner);
  addServe(program, runner);
  site
    .command('show')
    .description('show this site and its peers')
    .addHelpText('after', examples('warmsite site show', 'warmsite site show --json | jq .peerAddress'))
    .action(
      runner.run(async (context) => {
        const view = await (await context.api()).call('site.show', {});
        return { document: view, print: (page) => printSite(page, view, context.nowMs) };
      }),
    );
  addPairing(site, runner);
  addPeerCommands(site, runner);
  addRebuild(site, runner);
  addKey(site, runner);
  site
    .command('kit')
    .description('write the recovery kit anew: with it a new disk becomes this site again')
    .requiredOption('--to <file>', 'file to write, mode 0600; it must not exist')
    .addHelpText('after', examples('warmsite site kit --to /media/safe/north.kit'))
    .action(runner.run((context, o: { to: string }) => writeKitAnew(context, o.to)));
}

function addInit(site: Command, runner: Runner): void {
  site
    .command('init')
    .description('create a site in an empty data directory')
    .option('--name <name>', 'name of the site, for people')
    .option('--host <host>', 'host name or address under which other sites reach this one')
    .option('--peer-port <port>', 'port for other sites (default: 7443)', named('--peer-port', parsePort))
    .option(
      '--api-port <port>',
      'port of the API on 127.0.0.1 (default: 7444)',
      named('--api-port', parsePort),
    )
    .option('--from-kit <file>', 'be the site of this recovery kit again')
    .option('--kit-to <file>', 'where to write the recovery kit (default: NAME.kit in the current directory)')
    .addHelpText(
      'after',
      examples(
        'warmsite site init --name north --host north.example.com --kit-to /media/safe/north.kit',
        'warmsite site init --data /srv/warmsite --from-kit /media/safe/north.kit',
      ),
    )
    .action(runner.run(init));
}

async function init(context: Context, o: InitOptions): Promise<Report> {
  const { files, host } = context.world;
  if (o.name === undefined && o.fromKit === undefined) {
    throw cliFailure('CLI_USAGE', 'a new site needs --name; a site that was lost needs --from-kit');
  }
  const fromKit = o.fromKit === undefined ? undefined : await readKit(files, context.path(o.fromKit));
  // A site that is restored has its kit already.
  const kitPath = o.kitTo !== undefined || fromKit === undefined ? kitPathOf(context, o) : undefined;
  // Before the site is made: afterwards it would be a site without a kit.
  if (kitPath !== undefined) await refuseExisting(files, kitPath);
  const { dataDirectory } = context;
  const { siteId, kit } = await host.init({
    dataDirectory,
    ...(o.name === undefined ? {} : { name: o.name }),
    ...(fromKit === undefined ? {} : { fromKit }),
    ...(o.host === undefined ? {} : { host: o.host }),
    ...(o.apiPort === undefined ? {} : { apiPort: o.apiPort }),
    ...(o.peerPort === undefined ? {} : { peerPort: o.peerPort }),
  });
  if (kitPath !== undefined) await writeSecret(files, kitPath, kit);
  return {
    document: { siteId, dataDirectory, recoveryKit: kitPath ?? null },
    print: (page) => {
      page.line(`Site ${o.name ?? siteId} is in ${dataDirectory}.`);
      if (kitPath !== undefined) {
        page
          .line(`Its recovery kit is in ${kitPath}.`)
          .line('')
          .line(
            { text: 'Move the kit off this machine now: ', tone: 'warning' },
            'on paper, in a safe, in a password manager.',
          )
          .line(
            'Whoever has it can be this site; without it a site whose disk is gone cannot be itself again.',
          )
          .line('After pairing write a new one, which knows the peers: warmsite site kit --to FILE');
      }
      page.line('').line(`Next: warmsite site serve --data ${dataDirectory}`);
    },
  };
}

function kitPathOf(context: Context, o: InitOptions): string {
  if (o.kitTo !== undefined) return context.path(o.kitTo);
  const safeName = (o.name ?? 'site').replaceAll(/[^A-Za-z0-9._-]+/g, '-').replace(/^[.-]+/, '');
  return context.path(`${safeName || 'site'}.kit`);
}

async function readKit(files: FileSystem, path: string): Promise<string> {
  const bytes = await readSmallFile(files, path, KIT_BYTES_MAX);
  if (bytes) return bytes.toString('utf8');
  throw cliFailure('CLI_FILE_INVALID', `there is no file ${path}`, {
    hint: 'Name the file of the recovery kit.',
  });
}

async function refuseExisting(files: FileSystem, path: string): Promise<void> {
  if ((await files.sizeOf(path)) === undefined) return;
  throw cliFailure('CLI_FILE_EXISTS', `${path} exists already`, { context: { path } });
}

/** Durable on return, mode 0600. */
async function writeSecret(files: FileSystem, path: string, text: string): Promise<void> {
  const handle = await files.open(path, 'create');
  try {
    await handle.write(Buffer.from(text), 0);
    await handle.sync();
  } finally {
    await handle.close();
  }
  await files.syncDirectory(dirname(path));
}

async function writeKitAnew(context: Context, to: string): Promise<Report> {
  const { files, host } = context.world;
  const path = context.path(to);
  await refuseExisting(files, path);
  await writeSecret(files, path, await host.kit({ dataDirectory: context.dataDirectory }));
  return {
    document: { recoveryKit: path },
    print: (page) => {
      page.line(`The recovery kit is in ${path}. Move it off this machine; whoever has it can be this site.`);
    },
  };
}

function addServe(parent: Command, runner: Runner): void {
  parent
    .command('serve')
    .description('serve the site in the foreground until SIGTERM or SIGINT; machines run on afterwards')
    .option(
      '--log-level <level>',
      `${LOG_LEVELS.join(', ')}`,
      named('--log-level', (text) => parseWord(text, LOG_LEVELS)),
      'info',
    )
    .addHelpText(
      'after',
      `${examples('warmsite site serve --data /srv/warmsite', 'warmsite serve --log-level debug 2>warmsite.log')}
The log goes to standard error, one JSON object a line.`,
    )
    .action(
      runner.run(async (context, o: { logLevel: LogLevel }) => {
        const { world, dataDirectory } = context;
        const ended = Promise.withResolvers<void>();
        const remove = world.onInterrupt(() => ended.resolve());
        try {
          const served = await world.host.serve({ dataDirectory, logLevel: o.logLevel });
          const { apiAddress, peerAddress } = served;
          if (context.json) {
            // A line of its own, so that whoever started the process can read it while the site is served.
            world.output.write(`${JSON.stringify({ dataDirectory, apiAddress, peerAddress })}\n`);
          } else {
            world.output.write(`API        https://${hostPort(apiAddress)}\n`);
            world.output.write(`peer port  ${hostPort(peerAddress)}\n`);
          }
          await ended.promise;
          await served.close();
        } finally {
          remove();
        }
        return { document: undefined, print: () => undefined };
      }),
    );
}

function addPairing(site: Command, runner: Runner): void {
  site
    .command('token')
    .description('issue a pairing token: one use, for the other site')
    .option(
      '--lifetime <duration>',
      'how long it may be used, at most 15m',
      named('--lifetime', parseDuration),
    )
    .option('--host <host>', 'host name or address under which the other site reaches this one')
    .addHelpText(
      'after',
      examples('warmsite site token', 'warmsite site token --lifetime 5m --host 192.0.2.7'),
    )
    .action(
      runner.run(async (context, o: { lifetime?: number; host?: string }) => {
        const answer = await (await context.api()).call('site.token', {
          body: {
            ...(o.lifetime === undefined ? {} : { lifetimeMs: o.lifetime }),
            ...(o.host === undefined ? {} : { host: o.host }),
          },
        });
        const leftMs = Math.max(0, answer.expiresAtMs - context.nowMs);
        return {
          document: answer,
          print: (page) => {
            page.line(answer.token).line('');
            page.line(
              `Good for one use in the next ${formatDuration(leftMs)} (until ${formatTime(answer.expiresAtMs)}).`,
            );
            page.line('At the other site: warmsite site pair TOKEN. Carry it over a channel that you trust.');
          },
        };
      }),
    );
  site
    .command('pair')
    .description('pair with the site that issued the token')
    .argument('<token>', 'what `warmsite site token` printed at the other site')
    .option('--host <host>', 'host name or address under which the other site reaches this one')
    .addHelpText('after', examples('warmsite site pair warmsite-pair-1.WyIwMW…'))
    .action(
      runner.run(async (context, token: string, o: { host?: string }) => {
        const body = { token: token.trim(), ...(o.host === undefined ? {} : { host: o.host }) };
        const peer = await (await context.api()).call('site.pair', { body });
        return {
          document: peer,
          print: (page) => {
            page.line(`Paired with ${peer.name} (${peer.siteId}) at ${hostPort(peer.address)}.`);
            page.line('Write a new recovery kit, which knows the peer: warmsite site kit --to FILE');
          },
        };
      }),
    );
  site
    .command('peers')
    .description('list the paired sites')
    .addHelpText('after', examples('warmsite site peers'))
    .action(
      runner.run(async (context) => {
        const peers = await (await context.api()).call('site.peers', {});
        return { document: peers, print: (page) => printPeers(page, peers, context.nowMs) };
      }),
    );
}

function addRebuild(site: Command, runner: Runner): void {
  site
    .command('rebuild')
    .description('throw the index away and fill it again from the directories')
    .option('--offline', 'for a site that is not being served')
    .addHelpText(
      'after',
      examples('warmsite site rebuild', 'warmsite site rebuild --offline --data /srv/warmsite'),
    )
    .action(
      runner.run(async (context, o: { offline?: boolean }) => {
        const { dataDirectory, world } = context;
        const report = o.offline
          ? await world.host.rebuild({ dataDirectory })
          : await (await context.api()).call('site.rebuild', {});
        return {
          document: report,
          print: (page) => {
            page.line(
              `Found ${report.machines} machines at home, ${report.replicas} replicas, ${report.points} points.`,
            );
            for (const { machineId, error } of report.broken) {
              page.line(
                { text: `${machineId}: ${error.message} (${error.code}). `, tone: 'bad' },
                error.hint,
              );
            }
          },
          ...(report.broken.length > 0 ? { exitCode: EXIT_FOUND_BAD } : {}),
        };
      }),
    );
}
