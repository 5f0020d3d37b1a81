import { Pairing } from '../../peer/index.ts';
import type { AlertSink } from '../base/alerts.ts';
import type { Audit } from '../base/audit.ts';
import { controlFailure } from '../errors.ts';

type PairingTools = ConstructorParameters<typeof Pairing>[0];

/** Takes other sites in by their tokens; a token that is used twice is told to people. */
export function pairingOf({
  alerts,
  audit,
  ...tools
}: Omit<PairingTools, 'onTokenReuse' | 'onPaired'> & {
  readonly alerts: AlertSink;
  readonly audit: Pick<Audit, 'note'>;
}): Pairing {
  return new Pairing({
    ...tools,
    onTokenReuse: ({ tokenId, usedBySiteId, triedBySiteId }) => {
      const said = `a pairing token was used again, by ${triedBySiteId ?? 'an unknown site'}`;
      const context = { tokenId, usedBySiteId, triedBySiteId };
      alerts.raise(`token:${tokenId}`, 'critical', controlFailure('SITE_TOKEN_REUSED', said, { context }));
    },
    onPaired: (peer) =>
      audit.note({ actor: `peer:${peer.siteId}`, act: 'site.paired', subject: peer.siteId }),
  });
}
