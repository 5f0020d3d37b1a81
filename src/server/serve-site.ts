import { operatorToken, Site, type SiteTools, siteFiles } from '../control/index.ts';
import { QemuHypervisor, QemuImages, QemuLeaseGuards } from '../hypervisor/index.ts';
import { bootClock } from '../lib/boot-clock.ts';
import type { Clock } from '../lib/clock.ts';
import { publishFile } from '../lib/files.ts';
import type { Log } from '../lib/log.ts';
import { nodeFiles } from '../lib/node-files.ts';
import { systemRandom } from '../lib/random.ts';
import { ApiServer } from './api-server.ts';
import { OperatorTokens } from './authentication.ts';

export interface ServedSite {
  readonly site: Site;
  readonly apiAddress: { readonly host: string; readonly port: number };
  readonly peerAddress: { readonly host: string; readonly port: number };
  /** Ends the API, then the site; machines run on. */
  close(): Promise<void>;
}

/**
 * Serves the site of a data directory on this host: opens it, then its API, and writes where that listens into
 * `run/api.json`. Throws what `Site.open` throws, and API_LISTEN_FAILED; nothing is left open then.
 */
export async function serveSite(o: { dataDirectory: string; log: Log; clock: Clock }): Promise<ServedSite> {
  const { dataDirectory, log } = o;
  const tools = hostTools(log, o.clock);
  await using opening = new AsyncDisposableStack();
  const site = await Site.open({ dataDirectory, tools });
  opening.defer(() => site.close());
  const tokens = new OperatorTokens(await operatorToken(tools.files, dataDirectory));
  const { clock, random, files } = tools;
  const api = await ApiServer.listen({ site, tokens, clock, random, log });
  opening.defer(() => api.close());
  const { apiAddress: path } = siteFiles(dataDirectory);
  await publishFile(files, path, Buffer.from(`${JSON.stringify(api.address)}\n`));
  opening.defer(() => files.remove(path));
  const open = opening.move();
  const { peerAddress } = site;
  log.info('site.served', { siteId: site.identity.siteId, apiAddress: api.address, peerAddress });
  return { site, apiAddress: api.address, peerAddress, close: () => open.disposeAsync() };
}

/** This host as a site sees it. */
function hostTools(log: Log, clock: Clock): SiteTools {
  return {
    files: nodeFiles,
    clock,
    random: systemRandom,
    log,
    hypervisor: new QemuHypervisor({ clock }),
    images: new QemuImages({ clock }),
    leaseGuards: new QemuLeaseGuards(clock),
    bootClock,
  };
}
