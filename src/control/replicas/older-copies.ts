import { join } from 'node:path';
import Type from 'typebox';
import type { DeltaHeader } from '../../delta/index.ts';
import type { DiskImages } from '../../hypervisor/index.ts';
import type { Clock } from '../../lib/clock.ts';
import { messageOf } from '../../lib/errors.ts';
import type { FileSystem } from '../../lib/files.ts';
import type { Log } from '../../lib/log.ts';
import { recordKind } from '../../lib/records.ts';
import { OlderDisks, type OlderFile } from '../../replica/index.ts';
import type { AlertSink } from '../base/alerts.ts';
import { Stored } from '../base/stored.ts';

const OFFERS_MAX = 1024;

const OfferSchema = Type.Object({
  /** Name or id: the machine need not be known here yet. */
  machine: Type.String(),
  /** Where it is at home. Nobody else learns a digest. */
  siteId: Type.String(),
  offeredAtMs: Type.Integer({ minimum: 0 }),
  disks: Type.Array(
    Type.Object({
      diskId: Type.String(),
      path: Type.String(),
      format: Type.Union([Type.Literal('qcow2'), Type.Literal('raw')]),
      /** Why it is not used any more. */
      unfit: Type.Optional(Type.String()),
    }),
    { minItems: 1 },
  ),
});
export type OlderCopyOffer = Type.Static<typeof OfferSchema>;

const Offers = Type.Object({ offers: Type.Array(OfferSchema, { maxItems: OFFERS_MAX }) });
type Offers = Type.Static<typeof Offers>;
const OLDER_COPIES = recordKind('older-copies', 1, Offers);

interface Named {
  readonly machineId: string;
  readonly machineName: string;
}

interface OlderTools {
  readonly files: FileSystem;
  readonly images: DiskImages;
  readonly clock: Clock;
  readonly log: Log;
}

/** `older-copies.json` of a site: files of which a person says that they are older copies of a machine's disks. */
export class OlderCopies {
  readonly #tools: OlderTools;
  readonly #stored: Stored<Offers>;

  private constructor(tools: OlderTools, stored: Stored<Offers>) {
    this.#tools = tools;
    this.#stored = stored;
  }

  /** With `alerts` also where it cannot be read: nothing is offered then, and copies are sent as if nobody had. */
  static async open(tools: OlderTools, dataDirectory: string, alerts?: AlertSink): Promise<OlderCopies> {
    const path = join(dataDirectory, 'older-copies.json');
    const whileUnread = alerts && { alerts };
    return new OlderCopies(
      tools,
      await Stored.open(tools.files, path, OLDER_COPIES, { offers: [] }, whileUnread),
    );
  }

  /** Throws why it cannot be read what is offered: a file of it may not be taken away as one that nobody needs. */
  list(): readonly OlderCopyOffer[] {
    return this.#stored.said.offers;
  }

  /** In the place of what was offered of that machine before. Durable on return. */
  async offer(machine: string, siteId: string, disks: readonly OlderFile[]): Promise<OlderCopyOffer> {
    const offeredAtMs = this.#tools.clock.wallMs();
    const offer = { machine, siteId, offeredAtMs, disks: disks.map((disk) => ({ ...disk })) };
    await this.#stored.change(({ offers }) => ({
      offers: [...offers.filter((one) => one.machine !== machine), offer],
    }));
    return offer;
  }

  /** Durable on return; undefined if nothing was offered of it. */
  async withdraw(machine: string): Promise<OlderCopyOffer | undefined> {
    let withdrawn: OlderCopyOffer | undefined;
    await this.#stored.change((before) => {
      withdrawn = before.offers.find((one) => one.machine === machine);
      return withdrawn ? { offers: before.offers.filter((one) => one !== withdrawn) } : before;
    });
    return withdrawn;
  }

  /** What there is for the first copy of a machine that its site sends. */
  disksFor(siteId: string, machineName: string, header: DeltaHeader): OlderDisks | undefined {
    const offer = this.#of(siteId, { machineId: header.machineId, machineName });
    if (!offer) return undefined;
    const files = offer.disks.filter(({ unfit }) => unfit === undefined);
    const known = new Set(header.disks.map(({ diskId }) => diskId));
    for (const { diskId } of files)
      if (!known.has(diskId)) void this.#noteUnfit(offer, diskId, `${machineName} has no such disk`);
    if (files.length === 0) return undefined;
    const onUnfit = (diskId: string, reason: string): Promise<void> => this.#noteUnfit(offer, diskId, reason);
    return new OlderDisks({ ...this.#tools, onUnfit }, header, files);
  }

  /** The base is here: nothing is left to be spared. A failure is noted, and the next point tries again. */
  async published(siteId: string, named: Named): Promise<void> {
    const offer = this.#of(siteId, named);
    if (!offer) return;
    try {
      await this.withdraw(offer.machine);
    } catch (error) {
      this.#tools.log.warn('older-copy.not-dropped', { machine: offer.machine, reason: messageOf(error) });
    }
  }

  #of(siteId: string, { machineId, machineName }: Named): OlderCopyOffer | undefined {
    const ofSite = this.#stored.value.offers.filter((offer) => offer.siteId === siteId);
    return (
      ofSite.find(({ machine }) => machine === machineId) ??
      ofSite.find(({ machine }) => machine === machineName)
    );
  }

  /** What cannot be stored is found out again. */
  async #noteUnfit({ machine, offeredAtMs }: OlderCopyOffer, diskId: string, reason: string): Promise<void> {
    this.#tools.log.warn('older-copy.unfit', { machine, diskId, reason });
    try {
      await this.#stored.change(({ offers }) => ({
        offers: offers.map((offer) =>
          offer.machine === machine && offer.offeredAtMs === offeredAtMs
            ? { ...offer, disks: offer.disks.map((disk) => marked(disk, diskId, reason)) }
            : offer,
        ),
      }));
    } catch (error) {
      this.#tools.log.warn('older-copy.not-noted', { machine, diskId, reason: messageOf(error) });
    }
  }
}

function marked(disk: OlderCopyOffer['disks'][number], diskId: string, unfit: string) {
  return disk.diskId === diskId ? { ...disk, unfit } : disk;
}
