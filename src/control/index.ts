/**
 * One site: what it holds, what it does by itself, and what people may ask of it.
 *
 * Nouns. A *site* is everything that one process makes of one data directory: its identity, its peers, the machines at
 * home here, the replicas of machines at home elsewhere, and the acts on them. The *inventory* finds machines by name or
 * id. A *replication loop* keeps one machine replicated: copies when they are due, sends when there is something to send.
 * The *replica keeper* applies retention. A *link* is the connection with a paired site and its heartbeat. A *job* is a
 * long act as a record; the *audit log* says who did what; an *alert* says what is wrong now; an *event* that something
 * has changed. *Doctor* looks at everything that the host must give.
 *
 * Rooms, each needing only those before it. `base`: the site's books, files and loops. `machines`: what is at home here, and its
 * copies. `peers`: the links. `groups`. `leases`. `plans`. `replicas`: what is at home elsewhere. `drills`. `inventory`: all of it,
 * by name. `watch`: doctor and rounds. `reports`. `acts`: what people and peers may ask for. The files beside them compose.
 *
 * Promised: a data directory is served by one process; whatever dies, opening the site again goes on incrementally; the
 * database is an index, and a site that has lost it has lost neither a point nor a protection, only the history of its
 * jobs, alerts and audit; an intent is durable in the audit log before its act begins; a copy that was due and not made
 * leaves its reason; loops wait for events or the clock and never give up; everything that is wrong and stays wrong is an
 * alert with what to do about it.
 *
 * Not promised: that the audit log withstands somebody who can write the database; its chain of hashes shows changes
 * only against a hash that was kept elsewhere.
 *
 * Relied on: SQLite (node:sqlite) for its locks, which the kernel frees when a process dies, and for durable commits.
 */

export { type SiteSettings, siteFiles } from './base/site-files.ts';
export { CONTROL_ERRORS, controlFailure } from './errors.ts';
export { type InitSiteOptions, initSite, operatorToken, recoveryKitOf } from './init-site.ts';
export { Site } from './site.ts';
export type { SiteTools } from './site-ground.ts';
