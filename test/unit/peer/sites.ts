import type { Clock } from '../../../src/lib/clock.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { Failure } from '../../../src/lib/errors.ts';
import { type Log, type LogFields, silentLog } from '../../../src/lib/log.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { systemRandom } from '../../../src/lib/random.ts';
import {
  type CallHandler,
  createIdentity,
  Pairing,
  type Peer,
  PeerClient,
  PeerDirectory,
  PeerServer,
  redeemToken,
  type SiteIdentity,
  type TokenReuse,
  type UploadHandler,
} from '../../../src/peer/index.ts';
import { type CleanUp, temporaryDirectory } from '../../support/temporary.ts';

export interface Site {
  readonly identity: SiteIdentity;
  readonly peers: PeerDirectory;
  readonly pairing: Pairing;
  readonly server: PeerServer;
  readonly reuses: TokenReuse[];
  readonly clock: Clock;
  readonly dataDirectory: string;
  readonly address: { readonly host: string; readonly port: number };
}

export interface SiteOptions {
  readonly clock?: Clock;
  readonly calls?: Readonly<Record<string, CallHandler>>;
  readonly upload?: UploadHandler;
  readonly stallTimeoutMs?: number;
  readonly log?: Log;
}

/** A site that listens on 127.0.0.1 until the test ends. */
export async function startSite(t: CleanUp, name: string, o: SiteOptions = {}): Promise<Site> {
  const clock = o.clock ?? systemClock;
  const dataDirectory = await temporaryDirectory(t);
  const identity = await createIdentity({ name, clock, random: systemRandom });
  const peers = await PeerDirectory.load(nodeFiles, dataDirectory);
  return serve(t, { identity, peers, clock, dataDirectory }, o);
}

/** The same site started again, at a port of its own. */
export function again(t: CleanUp, { identity, peers, clock, dataDirectory }: Site): Promise<Site> {
  return serve(t, { identity, peers, clock, dataDirectory }, {});
}

async function serve(
  t: CleanUp,
  site: Pick<Site, 'identity' | 'peers' | 'clock' | 'dataDirectory'>,
  o: SiteOptions,
): Promise<Site> {
  const { identity, peers, clock, dataDirectory } = site;
  const random = systemRandom;
  const files = nodeFiles;
  const reuses: TokenReuse[] = [];
  const pairing = new Pairing({
    identity,
    peers,
    files,
    dataDirectory,
    clock,
    random,
    onTokenReuse: (reuse) => reuses.push(reuse),
  });
  const server = await PeerServer.listen({
    host: '127.0.0.1',
    port: 0,
    identity,
    peers,
    pairing,
    calls: o.calls ?? { echo: async (_peer, body) => body },
    upload: o.upload ?? countBytes,
    clock,
    random,
    log: o.log ?? silentLog,
    stallTimeoutMs: o.stallTimeoutMs,
  });
  t.after(() => server.close());
  return { ...site, pairing, server, reuses, address: server.address };
}

export const countBytes: UploadHandler = async (_peer, session, source) => {
  let bytes = 0;
  for await (const chunk of source) bytes += chunk.length;
  return { session, bytes };
};

/** `a` redeems a token of `b`; returns `b` as `a` pinned it. */
export async function pair(a: Site, b: Site): Promise<Peer> {
  const token = await b.pairing.issueToken({ lifetimeMs: 60_000, address: b.address });
  return await redeem(a, token);
}

export function redeem(site: Site, token: string): Promise<Peer> {
  return redeemToken({
    token,
    identity: site.identity,
    peers: site.peers,
    ownAddress: site.address,
    clock: site.clock,
    random: systemRandom,
  });
}

export function clientOf(t: CleanUp, site: Site, peer: Peer, address = peer.address): PeerClient {
  const client = new PeerClient({
    identity: site.identity,
    peer: { ...peer, address },
    clock: site.clock,
    random: systemRandom,
  });
  t.after(() => client.close());
  return client;
}

/** Two paired sites and a client of the first for the second. */
export async function twoSites(t: CleanUp, o: SiteOptions = {}) {
  const a = await startSite(t, 'Amsterdam', { clock: o.clock });
  const b = await startSite(t, 'Bergen', o);
  const peer = await pair(a, b);
  return { a, b, peer, client: clientOf(t, a, peer) };
}

/** For `assert.rejects`: a Failure with this code. */
export function code(expected: string): (error: unknown) => true {
  return (error) => {
    if (error instanceof Failure && error.code === expected) return true;
    throw new Error(`expected ${expected}, got ${String(error)}`, { cause: error });
  };
}

/** A log that keeps what it is told. */
export function keepingLog(entries: { event: string; fields: LogFields | undefined }[]): Log {
  const keep = (event: string, fields?: LogFields): void => void entries.push({ event, fields });
  return { info: keep, warn: keep, error: keep, with: () => keepingLog(entries) };
}

export async function* pieces(count: number, bytes: number): AsyncGenerator<Buffer> {
  const piece = Buffer.alloc(bytes, 7);
  for (let i = 0; i < count; i++) yield piece;
}
