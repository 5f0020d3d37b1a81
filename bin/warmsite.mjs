#!/usr/bin/env node
// Starts the command line (src/cli/main.ts) under a Node that runs TypeScript as it is. When the Node that
// runs this file is older, the one among the dependencies takes over. Plain JavaScript for old Nodes.

import { spawn } from 'node:child_process';
import { existsSync, readFileSync, realpathSync } from 'node:fs';
import module from 'node:module';
import { constants, homedir } from 'node:os';
import { dirname, join, sep } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const NODE_WANTED = [24, 12];
/** The exit code of a host that lacks something; see docs/errors.md. */
const EXIT_ENVIRONMENT = 8;

// A global installation is a symbolic link: the package is where the link leads.
const root = dirname(dirname(realpathSync(fileURLToPath(import.meta.url))));
const main = join(root, 'src', 'cli', 'main.ts');
// Compiled code is kept where only this user writes: it halves the time that a command takes to start.
const compiled = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'warmsite');
const ownNode = join(root, 'node_modules', '.bin', 'node');

if (root.split(sep).includes('node_modules')) {
  giveUp(
    'Node does not run TypeScript below a node_modules folder.',
    'Clone the repository, and run `npm ci` and `npm install -g .` in it.',
  );
} else if (lacksDependencies()) {
  giveUp(`Its dependencies are not installed in ${root}.`, `Run \`npm ci\` there.`);
} else if (recentEnough(process.versions.node)) {
  module.enableCompileCache(compiled);
  await import(pathToFileURL(main).href);
} else if (existsSync(ownNode)) {
  runUnder(ownNode);
} else {
  giveUp(
    `Warmsite needs Node ${NODE_WANTED.join('.')} or newer; this is ${process.versions.node}.`,
    `Run \`npm ci\` in ${root}: it brings such a Node along.`,
  );
}

/** npm links a folder that is installed globally, and leaves its dependencies to whoever has cloned it. */
function lacksDependencies() {
  const { dependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  return Object.keys(dependencies).some((name) => !existsSync(join(root, 'node_modules', name)));
}

/** @param {string} version such as «24.21.0» */
function recentEnough(version) {
  const [major, minor] = version.split('.').map(Number);
  return major > NODE_WANTED[0] || (major === NODE_WANTED[0] && minor >= NODE_WANTED[1]);
}

/** @param {string} node path of the program that runs the command line in our place */
function runUnder(node) {
  const env = { NODE_COMPILE_CACHE: compiled, ...process.env };
  const child = spawn(node, [main, ...process.argv.slice(2)], { stdio: 'inherit', env });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT']) {
    process.on(signal, () => child.kill(signal));
  }
  child.once('error', (error) => {
    giveUp(`${node} could not be started: ${error.message}`, `Run \`npm ci\` in ${root}.`);
  });
  child.once('exit', (code, signal) => {
    process.exitCode = code ?? 128 + (signal === null ? 0 : constants.signals[signal]);
  });
}

/**
 * @param {string} problem
 * @param {string} remedy
 */
function giveUp(problem, remedy) {
  process.stderr.write(`warmsite: ${problem}\n${remedy}\n`);
  process.exitCode = EXIT_ENVIRONMENT;
}
