/**
 * Who the other site is, and how to talk to it.
 *
 * A *site identity* is two Ed25519 keys that live as long as the site: an *authority*, which vouches for the
 * short-lived certificates (*leaves*) that the site shows in TLS, and a *signing key*, which signs statements about
 * recovery points. A *peer* is another site whose authority and signing key were pinned by *pairing*: a person
 * carries a one-time *token* from one site to the other. The *peer directory* holds the pinned peers; the *recovery
 * kit* is everything a new installation needs to be this site again. The *peer server* answers *calls* (JSON in,
 * JSON out) and *uploads* (a stream of any length in, JSON out); a *peer client* sends them to one peer.
 *
 * Promised: TLS 1.3 only; both sides prove their keys on each connection; nobody but a pinned peer that is not revoked
 * gets past the certificate check, which is made for each request; a token works once and within its time; a failure
 * thrown by a handler is thrown again, as the same failure, where the call was made; an error without a code tells
 * the peer nothing; memory is bounded whatever comes; a peer that is silent is noticed in bounded time; an answer
 * given before an upload ends reaches its sender; a body that was cut off is never taken for complete.
 * Not promised: that a call is done exactly once. A lost answer leaves it open, so handlers are idempotent and
 * resuming an upload is agreed on by a call of the layer above.
 *
 * Relied on: OpenSSL for TLS, for reading certificates and for Ed25519; a `Random` that cannot be guessed; clocks that
 * differ by less than a day; `lib/files` for durability. Host names play no part in who is who.
 *
 * The contract on the wire is `docs/protocol.md`.
 */
export { PEER_ERRORS } from './errors.ts';
export { createIdentity, loadIdentity, type SiteIdentity, saveIdentity } from './identity.ts';
export { keyIdOfPem, type Signer, verifySignature } from './keys.ts';
export { type Leaf, LeafKeeper } from './leaf-keeper.ts';
export { Pairing, type PairingOptions, TOKEN_LIFETIME_MAX_MS, type TokenReuse } from './pairing.ts';
export type { Peer, PeerAddress } from './peer.ts';
export { type Hello, PeerClient } from './peer-client.ts';
export { PeerDirectory } from './peer-directory.ts';
export { type CallHandler, PeerServer, type PeerServerOptions, type UploadHandler } from './peer-server.ts';
export { PROTOCOL } from './protocol.ts';
export { exportKit, importKit } from './recovery-kit.ts';
export { redeemToken } from './redeem.ts';
export { throttled } from './throttle.ts';
export type { UploadChunk } from './upload-sender.ts';
