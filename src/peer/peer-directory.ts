import { join } from 'node:path';
import type { FileSystem } from '../lib/files.ts';
import { isId } from '../lib/random.ts';
import { loadRecord, storeRecord } from '../lib/records.ts';
import { certificateFrom } from './certificates.ts';
import { peerFailure } from './errors.ts';
import { publicKeyFrom } from './keys.ts';
import { PEER_KIND, type Peer, type PeerAddress } from './peer.ts';

/**
 * The pinned peers of a site, each a file of its own. Changes are made one after the other; each is durable when
 * its promise resolves. One directory object per data directory.
 */
export class PeerDirectory {
  readonly #files: FileSystem;
  readonly #directory: string;
  readonly #peers: Map<string, Peer>;
  readonly #watchers = new Set<(peer: Peer) => void>();
  #turn: Promise<unknown> = Promise.resolve();

  constructor(files: FileSystem, directory: string, peers: Map<string, Peer>) {
    this.#files = files;
    this.#directory = directory;
    this.#peers = peers;
  }

  /** Reads every pinned peer. A damaged record is RECORD_CORRUPT: a peer is never forgotten in silence. */
  static async load(files: FileSystem, dataDirectory: string): Promise<PeerDirectory> {
    const directory = join(dataDirectory, 'peers');
    const peers = new Map<string, Peer>();
    for (const name of (await files.list(directory)) ?? []) {
      const siteId = name.endsWith('.json') ? name.slice(0, -'.json'.length) : '';
      // Scratch files of an interrupted publication are nothing.
      if (!isId(siteId)) continue;
      const peer = await loadRecord(files, join(directory, name), PEER_KIND);
      if (peer !== undefined) peers.set(siteId, checked(peer, siteId));
    }
    return new PeerDirectory(files, directory, peers);
  }

  /** All peers, revoked ones too, by site id. */
  list(): Peer[] {
    return [...this.#peers.values()].sort((a, b) => (a.siteId < b.siteId ? -1 : 1));
  }

  get(siteId: string): Peer | undefined {
    return this.#peers.get(siteId);
  }

  /**
   * Pins a peer. One that is pinned already under the same keys gets the new name and address, and is no longer
   * revoked; under other keys it is PEER_KEY_CHANGED, unless the old pinning was revoked.
   */
  add(peer: Peer): Promise<void> {
    return this.#change(async () => {
      this.assertPinnable(peer);
      await this.#store(checked(peer, peer.siteId));
    });
  }

  /** Throws PEER_KEY_CHANGED where `add` would. */
  assertPinnable(peer: Pick<Peer, 'siteId' | 'caCertificate' | 'signingKey'>): void {
    const known = this.#peers.get(peer.siteId);
    if (known === undefined || known.revokedAtMs !== undefined) return;
    if (known.caCertificate === peer.caCertificate && known.signingKey === peer.signingKey) return;
    throw peerFailure('PEER_KEY_CHANGED', `site ${peer.siteId} is known here under other keys`, {
      context: { siteId: peer.siteId, name: known.name },
    });
  }

  /** From the moment of the call the peer is refused; the promise says when that survives a restart. */
  revoke(siteId: string, atMs: number): Promise<void> {
    const peer = this.#known(siteId);
    const revokedAtMs = peer.revokedAtMs ?? atMs;
    this.#show({ ...peer, revokedAtMs });
    // Read again in its turn: an address set just before must not be lost.
    return this.#change(() => this.#store({ ...this.#known(siteId), revokedAtMs }));
  }

  setAddress(siteId: string, address: PeerAddress): Promise<void> {
    return this.#change(async () => {
      const { host, port } = address;
      await this.#store(checked({ ...this.#known(siteId), address: { host, port } }, siteId));
    });
  }

  /** Calls `fn` with every peer that was added or changed; the returned function ends that. */
  watch(fn: (peer: Peer) => void): () => void {
    this.#watchers.add(fn);
    return () => this.#watchers.delete(fn);
  }

  #known(siteId: string): Peer {
    const peer = this.#peers.get(siteId);
    if (peer) return peer;
    throw peerFailure('PEER_UNKNOWN', `there is no peer ${siteId} here`, { context: { siteId } });
  }

  async #store(peer: Peer): Promise<void> {
    await this.#files.makeDirectory(this.#directory);
    await storeRecord(this.#files, join(this.#directory, `${peer.siteId}.json`), PEER_KIND, peer);
    this.#show(peer);
  }

  #show(peer: Peer): void {
    this.#peers.set(peer.siteId, peer);
    for (const watcher of this.#watchers) watcher(peer);
  }

  #change(work: () => Promise<void>): Promise<void> {
    const done = this.#turn.then(work);
    // The next change waits for this one whatever became of it; its caller has the failure.
    this.#turn = done.catch(() => undefined);
    return done;
  }
}

/** The peer with nothing but the fields of a peer; throws PEER_INTRODUCTION_INVALID if its keys are none. */
function checked(peer: Peer, siteId: string): Peer {
  if (
    peer.siteId !== siteId ||
    !PEER_KIND.accepts(peer) ||
    !certificateFrom(peer.caCertificate)?.ca ||
    !publicKeyFrom(peer.signingKey)
  ) {
    throw peerFailure('PEER_INTRODUCTION_INVALID', `what is known of site ${siteId} is not a valid peer`, {
      context: { siteId },
      hint: 'Pair the two sites again.',
    });
  }
  return {
    siteId,
    name: peer.name,
    caCertificate: peer.caCertificate,
    signingKey: peer.signingKey,
    address: { host: peer.address.host, port: peer.address.port },
    pairedAtMs: peer.pairedAtMs,
    ...(peer.revokedAtMs === undefined ? {} : { revokedAtMs: peer.revokedAtMs }),
  };
}
