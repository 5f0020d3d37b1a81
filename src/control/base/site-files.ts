import { isAbsolute, join } from 'node:path';
import Type from 'typebox';
import { CLIENT_FILES } from '../../api/index.ts';
import { recordKind } from '../../lib/records.ts';
import { controlFailure } from '../errors.ts';

const Port = Type.Integer({ minimum: 0, maximum: 65535 });
const Host = Type.String({ minLength: 1, maxLength: 253, pattern: '^[0-9A-Za-z._:-]+$' });

const SiteSchema = Type.Object({
  /** Where the API listens; port 0 for any free one. */
  api: Type.Object({ host: Host, port: Port }),
  /** Where other sites are served. */
  peer: Type.Object({ host: Host, port: Port }),
  /** The host name or address under which other sites reach this one; tokens carry it. */
  advertisedHost: Type.Optional(Host),
});
/** `site.json`: how a site is set up. Changed by hand while no process serves it. */
export type SiteSettings = Type.Static<typeof SiteSchema>;

export const SITE_RECORD = recordKind('site', 1, SiteSchema);

export const DEFAULT_SETTINGS: SiteSettings = {
  api: { host: '127.0.0.1', port: 7444 },
  peer: { host: '0.0.0.0', port: 7443 },
};

/** Where a site keeps what belongs to it as a whole. */
export function siteFiles(dataDirectory: string) {
  return {
    settings: join(dataDirectory, 'site.json'),
    database: join(dataDirectory, 'site.db'),
    keys: join(dataDirectory, 'keys'),
    run: join(dataDirectory, 'run'),
    /** What the operator lets plans run on this host. */
    programs: join(dataDirectory, 'programs'),
    authority: join(dataDirectory, CLIENT_FILES.authority),
    operatorToken: join(dataDirectory, CLIENT_FILES.operatorToken),
    apiAddress: join(dataDirectory, CLIENT_FILES.apiAddress),
  };
}

/** Unix sockets lie below the data directory, and their names have at most 107 bytes (unix(7)). */
const DATA_DIRECTORY_BYTES_MAX = 64;

/** Throws SITE_PATH_UNSUITABLE. */
export function checkDataDirectory(path: string): void {
  if (isAbsolute(path) && Buffer.byteLength(path) <= DATA_DIRECTORY_BYTES_MAX) return;
  throw controlFailure('SITE_PATH_UNSUITABLE', `${path} cannot be a data directory`, { context: { path } });
}
