import type { Clock } from '../lib/clock.ts';
import { type FileSystem, publishFile, readSmallFile } from '../lib/files.ts';
import type { Random } from '../lib/random.ts';
import { storeRecord } from '../lib/records.ts';
import {
  createIdentity,
  exportKit,
  importKit,
  loadIdentity,
  PeerDirectory,
  saveIdentity,
} from '../peer/index.ts';
import {
  checkDataDirectory,
  DEFAULT_SETTINGS,
  SITE_RECORD,
  type SiteSettings,
  siteFiles,
} from './base/site-files.ts';
import { SiteLock } from './base/site-lock.ts';
import { controlFailure } from './errors.ts';

const TOKEN_BYTES = 32;

export interface InitSiteOptions {
  readonly dataDirectory: string;
  /** For people; may be left out with `fromKit`, which has a name. */
  readonly name?: string;
  /** The text of a recovery kit: the new installation becomes that site again. */
  readonly fromKit?: string;
  readonly settings?: Partial<SiteSettings>;
}

/**
 * Makes a site in an empty data directory: identity, settings, operator token; files of mode 0600 in directories of mode
 * 0700, all durable on return. With a kit the identity and the pinned peers are those of the kit, and whatever replicas
 * and machines lie in the directory are the site's again.
 *
 * Returns the text of the recovery kit: whoever has it can be the site, and without it a site whose disk is gone cannot
 * be itself again. Throws SITE_EXISTS, SITE_LOCKED, PEER_NAME_INVALID, PEER_KIT_INVALID.
 */
export async function initSite(
  tools: { files: FileSystem; clock: Clock; random: Random },
  o: InitSiteOptions,
): Promise<{ siteId: string; recoveryKit: string }> {
  const { files } = tools;
  checkDataDirectory(o.dataDirectory);
  const paths = siteFiles(o.dataDirectory);
  await files.makeDirectory(o.dataDirectory);
  const lock = SiteLock.take(o.dataDirectory);
  try {
    // The settings are written last: what lacks them is an initialisation that was cut short, and is begun again.
    if ((await files.sizeOf(paths.settings)) !== undefined) {
      throw controlFailure('SITE_EXISTS', `there is a site in ${o.dataDirectory} already`);
    }
    const kit = o.fromKit === undefined ? undefined : importKit(o.fromKit);
    const identity = kit?.identity ?? (await createIdentity({ name: o.name ?? '', ...tools }));
    await saveIdentity(files, o.dataDirectory, identity);
    const peers = await PeerDirectory.load(files, o.dataDirectory);
    for (const peer of kit?.peers ?? []) await peers.add(peer);
    for (const directory of [paths.keys, paths.run]) await files.makeDirectory(directory);
    await publishFile(files, paths.authority, Buffer.from(identity.caCertificate));
    const token = tools.random.bytes(TOKEN_BYTES).toString('base64url');
    await publishFile(files, paths.operatorToken, Buffer.from(`${token}\n`));
    await storeRecord(files, paths.settings, SITE_RECORD, { ...DEFAULT_SETTINGS, ...o.settings });
    return { siteId: identity.siteId, recoveryKit: exportKit(identity, peers.list()) };
  } finally {
    lock.release();
  }
}

/** The text of the recovery kit as of now, with the peers that are paired; throws SITE_MISSING. Nothing is locked. */
export async function recoveryKitOf(files: FileSystem, dataDirectory: string): Promise<string> {
  const identity = await loadIdentity(files, dataDirectory);
  if (!identity) throw controlFailure('SITE_MISSING', `there is no site in ${dataDirectory}`);
  return exportKit(identity, (await PeerDirectory.load(files, dataDirectory)).list());
}

/** The operator token of a site; throws SITE_MISSING. */
export async function operatorToken(files: FileSystem, dataDirectory: string): Promise<string> {
  const bytes = await readSmallFile(files, siteFiles(dataDirectory).operatorToken, 1024);
  const token = bytes?.toString('utf8').trim();
  if (token) return token;
  throw controlFailure('SITE_MISSING', `there is no operator token in ${dataDirectory}`);
}
