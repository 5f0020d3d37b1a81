import type { X509Certificate } from 'node:crypto';
import { Agent } from 'node:https';
import { connect, type TLSSocket } from 'node:tls';
import { type Clock, cancelled, withTimeout } from '../lib/clock.ts';
import type { Random } from '../lib/random.ts';
import { certificateFrom, fingerprintOf } from './certificates.ts';
import { peerFailure } from './errors.ts';
import { agentOptions, connectionFailure, exchange, type Target, where } from './exchange.ts';
import type { SiteIdentity } from './identity.ts';
import { introduce, peerFromIntroduction } from './introduction.ts';
import { LeafKeeper } from './leaf-keeper.ts';
import { decodeToken, type PairingToken } from './pairing-token.ts';
import type { Peer, PeerAddress } from './peer.ts';
import type { PeerDirectory } from './peer-directory.ts';
import { CALL_TIMEOUT_MS, PATH } from './protocol.ts';

/**
 * The redeeming side of pairing: finds the issuing site, checks it against the token before a byte is sent, proves
 * the token, and pins the site durably. `ownAddress` is where the other reaches this site.
 *
 * Throws PEER_TOKEN_MALFORMED, PEER_TOKEN_WRONG, PEER_TOKEN_USED, PEER_TOKEN_EXPIRED, PEER_AUTHORITY_WRONG,
 * PEER_SELF, PEER_KEY_CHANGED, PEER_INTRODUCTION_INVALID, PEER_UNREACHABLE, PEER_TIMEOUT and those of TLS.
 */
export async function redeemToken(o: {
  token: string;
  identity: SiteIdentity;
  peers: PeerDirectory;
  ownAddress: PeerAddress;
  clock: Clock;
  random: Random;
  timeoutMs?: number;
  signal?: AbortSignal;
}): Promise<Peer> {
  const token = decodeToken(o.token);
  if (token.siteId === o.identity.siteId) {
    throw peerFailure('PEER_SELF', 'this token was issued by this very site');
  }
  const timeoutMs = o.timeoutMs ?? CALL_TIMEOUT_MS;
  const address = `${token.address.host}:${token.address.port}`;
  const peer = await withTimeout(
    o.clock,
    timeoutMs,
    (signal) => introduceBoth(token, { ...o, signal }),
    () => peerFailure('PEER_TIMEOUT', `pairing with ${address} took more than ${timeoutMs} ms`),
    o.signal,
  );
  await o.peers.add(peer);
  return peer;
}

async function introduceBoth(
  token: PairingToken,
  o: {
    identity: SiteIdentity;
    peers: PeerDirectory;
    ownAddress: PeerAddress;
    clock: Clock;
    random: Random;
    signal: AbortSignal;
  },
): Promise<Peer> {
  const unknown: Target = {
    siteId: token.siteId,
    name: `site ${token.siteId}`,
    address: token.address,
    caCertificate: '',
  };
  const authority = await shownAuthority(unknown, o.signal);
  if (!fingerprintOf(authority).equals(token.fingerprint)) {
    throw peerFailure(
      'PEER_AUTHORITY_WRONG',
      `what answers at ${where(unknown)} is not the site that issued the token`,
      {
        context: { siteId: token.siteId },
      },
    );
  }
  const target: Target = { ...unknown, caCertificate: authority.toString() };
  const agent = new Agent(agentOptions(1));
  try {
    const answer = await exchange(target, {
      method: 'POST',
      path: PATH.pair,
      body: {
        tokenId: token.tokenId,
        secret: token.secret.toString('base64url'),
        introduction: introduce(o.identity, o.ownAddress, { audience: token.siteId, tokenId: token.tokenId }),
      },
      leaf: new LeafKeeper(o).current(),
      clock: o.clock,
      agent,
      signal: o.signal,
    });
    const occasion = { audience: o.identity.siteId, tokenId: token.tokenId };
    const peer = peerFromIntroduction(answer, occasion, o.clock.wallMs());
    const introduced = certificateFrom(peer.caCertificate);
    if (peer.siteId !== token.siteId || !introduced || !fingerprintOf(introduced).equals(token.fingerprint)) {
      throw peerFailure(
        'PEER_INTRODUCTION_INVALID',
        `${where(target)} introduced another site than the token's`,
      );
    }
    // The address that has just worked counts, not the one that the site says of itself.
    return { ...peer, address: token.address };
  } finally {
    agent.destroy();
  }
}

/** The authority that a server shows below its leaf. Nothing is sent over this connection and nothing trusted. */
function shownAuthority(target: Target, signal: AbortSignal): Promise<X509Certificate> {
  return new Promise<X509Certificate>((resolve, reject) => {
    const socket = connect({
      host: target.address.host,
      port: target.address.port,
      minVersion: 'TLSv1.3',
      // The fingerprint in the token decides, right below; this connection carries no data.
      rejectUnauthorized: false,
    });
    const onAbort = (): void => void socket.destroy(cancelled(signal));
    if (signal.aborted) onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
    socket.once('close', () => {
      signal.removeEventListener('abort', onAbort);
      reject(
        peerFailure('PEER_CONNECTION_LOST', `${where(target)} hung up`, {
          context: { address: where(target) },
        }),
      );
    });
    socket.on('error', (error) => reject(connectionFailure(error, target, false)));
    socket.once('secureConnect', () => {
      const authority = secondOfChain(socket);
      if (authority) resolve(authority);
      else {
        const said = `${where(target)} shows no certificate of a site`;
        reject(peerFailure('PEER_AUTHORITY_WRONG', said, { context: { address: where(target) } }));
      }
      socket.destroy();
    });
  });
}

function secondOfChain(socket: TLSSocket): X509Certificate | undefined {
  const leaf = socket.getPeerCertificate(true);
  const raw = leaf.issuerCertificate?.raw as Buffer | undefined;
  if (raw === undefined || raw.equals(leaf.raw)) return undefined;
  return certificateFrom(
    `-----BEGIN CERTIFICATE-----\n${raw.toString('base64')}\n-----END CERTIFICATE-----\n`,
  );
}
