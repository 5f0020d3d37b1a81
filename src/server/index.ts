/**
 * The edge of a site towards people and programs: the HTTPS API, its event stream, and the log.
 *
 * Nouns. The *API server* answers the routes of `api` with what `control` says. An *operator token* is what a client
 * shows; who shows it is the *actor* of the acts that it asks for. A *served site* is a site with its API open.
 *
 * Promised: TLS 1.3 with a leaf of the site's own authority, renewed while the server runs; nothing is looked at before
 * the token is, in constant time; no request is acted upon that its schema does not admit, and none that is larger than
 * the limit is read; every answer has the shape that its route declares or is a failure with a code; an unexpected error
 * tells the client nothing but that it happened, and the log everything; a client that goes away ends what waited for
 * it, and one that does not listen to its events is let go.
 *
 * Relied on: `control` for every decision; fastify for HTTP. There is no CORS: browsers of other origins have no
 * business here.
 */
export { SERVER_ERRORS } from './errors.ts';
export { jsonLog, type LogLevel } from './pino-log.ts';
export { type ServedSite, serveSite } from './serve-site.ts';
