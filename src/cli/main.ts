import { createInterface } from 'node:readline';
import { systemClock } from '../lib/clock.ts';
import { systemCodeOf } from '../lib/errors.ts';
import { nodeFiles } from '../lib/node-files.ts';
import { systemRandom } from '../lib/random.ts';
import { type InitRequest, runCommandLine, type SiteHost, type World } from './index.ts';

/** The program `warmsite`: composes the command line with this process and this host. */

// Sockets, keys and pictures that QEMU or we create are for this user alone.
process.umask(0o077);

// Whoever reads our output may stop reading (`| head`); that is no error of ours.
process.stdout.on('error', (error) => {
  if (systemCodeOf(error) !== 'EPIPE') throw error;
  process.exit();
});

const tools = { files: nodeFiles, clock: systemClock, random: systemRandom };

/** A whole site is loaded by those commands alone that need one here: all others should answer at once. */
const loadControl = () => import('../control/index.ts');
const loadServer = () => import('../server/index.ts');

const host: SiteHost = {
  async init(request) {
    const { initSite } = await loadControl();
    const { siteId, recoveryKit } = await initSite(tools, initOptions(request));
    return { siteId, kit: recoveryKit };
  },
  serve: ({ dataDirectory, logLevel }) => serve(dataDirectory, logLevel),
  async rebuild({ dataDirectory }) {
    const served = await serve(dataDirectory, 'error');
    try {
      return await served.site.rebuild('site');
    } finally {
      await served.close();
    }
  },
  async kit({ dataDirectory }) {
    const { recoveryKitOf } = await loadControl();
    return recoveryKitOf(nodeFiles, dataDirectory);
  },
};

function initOptions({ dataDirectory, name, fromKit, host: advertisedHost, apiPort, peerPort }: InitRequest) {
  return {
    dataDirectory,
    ...(name === undefined ? {} : { name }),
    ...(fromKit === undefined ? {} : { fromKit }),
    settings: {
      ...(advertisedHost === undefined ? {} : { advertisedHost }),
      ...(apiPort === undefined ? {} : { api: { host: '127.0.0.1', port: apiPort } }),
      ...(peerPort === undefined ? {} : { peer: { host: '0.0.0.0', port: peerPort } }),
    },
  };
}

async function serve(dataDirectory: string, level: 'error' | 'warn' | 'info' | 'debug') {
  const { jsonLog, serveSite } = await loadServer();
  return serveSite({
    ...{ dataDirectory, clock: systemClock },
    log: jsonLog({ level, destination: process.stderr }),
  });
}

/** The first interrupt is the listener's; a second one ends the process as if there were none. */
function onInterrupt(listener: () => void): () => void {
  const remove = () => {
    process.off('SIGINT', heard);
    process.off('SIGTERM', heard);
  };
  const heard = () => {
    remove();
    listener();
  };
  process.on('SIGINT', heard);
  process.on('SIGTERM', heard);
  return remove;
}

function ask(question: string): Promise<string | undefined> {
  if (!process.stdin.isTTY) return Promise.resolve(undefined);
  return new Promise((resolve) => {
    const lines = createInterface({ input: process.stdin, output: process.stderr });
    // Ctrl-C and Ctrl-D close it: no answer is not the word that was asked for.
    lines.once('close', () => resolve(''));
    lines.question(question, (answer) => {
      resolve(answer);
      lines.close();
    });
  });
}

const world: World = {
  environment: process.env,
  workingDirectory: process.cwd(),
  output: process.stdout,
  messages: process.stderr,
  ...tools,
  host,
  onInterrupt,
  ask,
};

process.exitCode = await runCommandLine(process.argv.slice(2), world);
