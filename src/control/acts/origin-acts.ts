import type { OriginView } from '../../api/index.ts';
import type { Replicas } from '../../replica/index.ts';
import type { Audit } from '../base/audit.ts';
import { controlFailure } from '../errors.ts';
import type { PeerLinks } from '../peers/peer-links.ts';
import type { Origins } from '../replicas/origins.ts';

interface OriginActsTools {
  readonly origins: Origins;
  readonly replicas: Replicas;
  readonly links: Pick<PeerLinks, 'view'>;
  readonly audit: Audit;
}

/** What a person says of sites whose points others forward here. */
export class OriginActs {
  readonly #o: OriginActsTools;

  constructor(o: OriginActsTools) {
    this.#o = o;
  }

  list(): OriginView[] {
    return this.#o.origins.list().map((origin) => this.#named(origin));
  }

  /** The word of a person that the origin itself shows this key. Throws ORIGIN_UNKNOWN, ORIGIN_KEY_WRONG. */
  confirm(actor: string, siteId: string, keyId: string): Promise<OriginView> {
    const act = { actor, act: 'origin.confirm', subject: siteId, details: { keyId } };
    return this.#o.audit.acting(act, async () => this.#named(await this.#o.origins.confirm(siteId, keyId)));
  }

  /** Throws ORIGIN_UNKNOWN, ORIGIN_IN_USE. */
  forget(actor: string, siteId: string): Promise<void> {
    return this.#o.audit.acting({ actor, act: 'origin.forget', subject: siteId }, async () => {
      const used = this.#o.replicas
        .list()
        .filter(({ record }) => record.sourceSiteId === siteId && record.viaSiteId !== undefined)
        .map(({ record }) => record.machineName);
      if (used.length === 0) return this.#o.origins.forget(siteId);
      const said = `the replicas of ${used.join(', ')} have points of it`;
      throw controlFailure('ORIGIN_IN_USE', said, { context: { siteId } });
    });
  }

  #named(origin: Omit<OriginView, 'viaName'>): OriginView {
    const name = this.#o.links.view(origin.viaSiteId)?.name;
    return { ...origin, ...(name === undefined ? {} : { viaName: name }) };
  }
}
