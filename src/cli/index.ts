/**
 * The command line: what a person or a script tells a site to do, and how the answer looks.
 *
 * Nouns. A *world* is everything that the command line takes from outside: streams, clock, files, signals, and the
 * *site host*, which creates and serves a site (the only acts that need no API). A *context* is one run: its data
 * directory, its connection with the site, its progress display. A *report* is what a command has to say, once as a
 * document for programs and once as a *page* for people. A *display* shows how far long work is.
 *
 * Promised: every command is a client of the API, found through the files that a site leaves in its data directory, and
 * trusts the authority that lies there and nothing else; answers are checked against the contract before they are
 * believed. With `--json` standard output holds exactly one JSON document, `{ error }` when the command fails. The exit code
 * is 0; 1 when the act was done and found something bad; otherwise that of the failure's kind (docs/errors.md). Every
 * failure says what failed, its code, and what to do next. Nothing that a guest or another site has named reaches a
 * terminal as more than text. An interrupt ends the watching and not the work. What cannot be taken back asks first, and
 * without a terminal it needs an option that says so.
 *
 * `main.ts` composes: it alone knows `server` and `control`; all other files know `api` and `lib`.
 */
export { ApiClient } from './api-client.ts';
export { runCommandLine } from './command-line.ts';
export { CLI_ERRORS } from './errors.ts';
export { readApiAccess } from './site-files.ts';
export type { InitRequest, ServedSite, SiteHost, World } from './world.ts';
