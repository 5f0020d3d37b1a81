import type { OfferOlderCopyRequest, OlderCopyView } from '../../api/index.ts';
import type { DiskImages } from '../../hypervisor/index.ts';
import type { FileSystem } from '../../lib/files.ts';
import { type Replicas, tryOlderFile } from '../../replica/index.ts';
import type { Audit } from '../base/audit.ts';
import { controlFailure } from '../errors.ts';
import type { PeerLinks } from '../peers/peer-links.ts';
import type { OlderCopies, OlderCopyOffer } from '../replicas/older-copies.ts';

interface OlderCopyTools {
  readonly files: FileSystem;
  readonly images: DiskImages;
  readonly offers: OlderCopies;
  readonly replicas: Replicas;
  readonly links: PeerLinks;
  readonly audit: Audit;
  /** A first copy that is on its way goes on with what is offered now. */
  readonly onChanged: (siteId: string, machine: string) => void;
}

/** What a person at the recovery site says of older copies that it has. */
export class OlderCopyActs {
  readonly #o: OlderCopyTools;

  constructor(o: OlderCopyTools) {
    this.#o = o;
  }

  list(): OlderCopyView[] {
    return this.#o.offers.list().map((offer) => this.#view(offer));
  }

  /**
   * Of a machine that need not be known here yet. Throws OLDER_COPY_UNNEEDED, OLDER_COPY_UNCLEAR, REPLICA_OLDER_COPY_UNFIT, and
   * what hinders reading a file.
   */
  offer(actor: string, machine: string, request: OfferOlderCopyRequest): Promise<OlderCopyView> {
    const { audit, offers } = this.#o;
    const details = { ...request };
    return audit.acting({ actor, act: 'seed.offer', subject: machine, details }, async () => {
      const { disks } = request;
      const twice = disks.find(({ diskId }, at) => disks.findIndex((one) => one.diskId === diskId) < at);
      if (twice) throw controlFailure('OLDER_COPY_UNCLEAR', `${twice.diskId} is named twice`);
      const siteId = this.#siteOf(machine, request.from);
      for (const disk of disks) await tryOlderFile(this.#o, disk);
      const offer = await offers.offer(machine, siteId, disks);
      this.#o.onChanged(siteId, machine);
      return this.#view(offer);
    });
  }

  /** Throws OLDER_COPY_UNKNOWN. A copy that is under way goes on without it. */
  withdraw(actor: string, machine: string): Promise<OlderCopyView> {
    return this.#o.audit.acting({ actor, act: 'seed.withdraw', subject: machine }, async () => {
      const offer = await this.#o.offers.withdraw(machine);
      if (!offer) {
        const said = `no older copy of ${machine} is offered`;
        throw controlFailure('OLDER_COPY_UNKNOWN', said, { context: { machine } });
      }
      this.#o.onChanged(offer.siteId, machine);
      return this.#view(offer);
    });
  }

  /** Nobody but the site of the machine may learn digests of its blocks. */
  #siteOf(machine: string, from: string | undefined): string {
    const replica = this.#o.replicas
      .list()
      .find(({ record }) => record.machineId === machine || record.machineName === machine);
    if (replica?.newest) {
      const said = `the base of ${machine} is here already`;
      throw controlFailure('OLDER_COPY_UNNEEDED', said, { context: { machine } });
    }
    const peers = this.#o.links.views();
    const meant = peers.filter(({ siteId, name }) => from === undefined || siteId === from || name === from);
    if (meant.length === 1) return meant[0]!.siteId;
    if (from === undefined && replica) return replica.record.sourceSiteId;
    const names = peers.map(({ name }) => name).join(', ');
    const said = `it is not clear from which site ${machine} comes; paired are: ${names || 'none'}`;
    throw controlFailure('OLDER_COPY_UNCLEAR', said, { context: { machine } });
  }

  #view({ disks, ...offer }: OlderCopyOffer): OlderCopyView {
    const siteName = this.#o.links.view(offer.siteId)?.name;
    return {
      ...{ ...offer, disks: disks.map((disk) => ({ ...disk })) },
      ...(siteName === undefined ? {} : { siteName }),
    };
  }
}
