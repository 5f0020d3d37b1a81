import type { DeltaHeader } from '../../src/delta/index.ts';
import type { UploadChunk } from '../../src/peer/index.ts';
import type { DigestPage, OlderDisks, Replicas } from '../../src/replica/index.ts';
import type { OfferDetails, ReplicationTarget, SeedTarget } from '../../src/replication/index.ts';

/** What the operator of a target has offered for the first copy of a machine. */
export type OlderFor = (header: DeltaHeader) => OlderDisks | undefined;

/** A target that is a replica store in the same process: the whole path but the wire. */
export class DirectTarget implements ReplicationTarget {
  readonly siteId: string;
  readonly sourceSiteId: string;
  readonly #replicas: Replicas;
  readonly #olderFor: OlderFor | undefined;
  #older: OlderDisks | undefined;

  constructor(o: {
    siteId: string;
    sourceSiteId: string;
    replicas: Replicas;
    olderFor?: OlderFor;
  }) {
    this.#olderFor = o.olderFor;
    this.siteId = o.siteId;
    this.sourceSiteId = o.sourceSiteId;
    this.#replicas = o.replicas;
  }

  async describe(machineId: string) {
    // A replica that cannot be opened must not look like one that was never there.
    if (this.#replicas.broken.some((broken) => broken.machineId === machineId))
      this.#replicas.need(machineId);
    return this.#replicas.get(machineId)?.describe() ?? null;
  }

  async offer(header: DeltaHeader, { machineName, retention, forwarded }: OfferDetails) {
    const from = forwarded
      ? { sourceSiteId: forwarded.origin.siteId, viaSiteId: this.sourceSiteId }
      : { sourceSiteId: this.sourceSiteId };
    const replica = await this.#replicas.forOffer(header, { ...from, machineName, retention });
    const answer = await replica.offer({ header, skewMs: 0 });
    this.#older = header.parent === null ? this.#olderFor?.(header) : undefined;
    return answer.kind === 'accept' && this.#older ? { ...answer, older: this.#older.diskIds } : answer;
  }

  get seeds(): SeedTarget {
    return {
      announce: async (announcement, { machineName, retention }, leaves) => {
        const replica = await this.#replicas.forOffer(announcement.signed.statement, {
          sourceSiteId: this.sourceSiteId,
          machineName,
          retention,
        });
        return replica.announceSeed({ ...announcement, skewMs: 0 }, flat(leaves));
      },
      keep: (machineId, pointId) => this.#replicas.need(machineId).seeding.keep(pointId),
    };
  }

  async olderLeaves(_session: string, page: DigestPage): Promise<Uint8Array> {
    return this.#older!.digests(page);
  }

  async upload(machineId: string, session: string, stream: AsyncIterable<UploadChunk>, signal?: AbortSignal) {
    await using older = this.#older;
    return await this.#replicas.need(machineId).receive(session, flat(stream), { signal, older });
  }
}

/** The same target with another way to upload. */
export function uploadingBy(
  target: ReplicationTarget,
  upload: ReplicationTarget['upload'],
): ReplicationTarget {
  return {
    siteId: target.siteId,
    seeds: target.seeds,
    describe: (machineId) => target.describe(machineId),
    offer: (header, details) => target.offer(header, details),
    ...(target.olderLeaves
      ? { olderLeaves: (session: string, page: DigestPage) => target.olderLeaves!(session, page) }
      : {}),
    upload,
  };
}

/** Copies, as a network does: the memory of a chunk is the sender's again when the next one is asked for. */
async function* flat(stream: AsyncIterable<UploadChunk>): AsyncGenerator<Uint8Array> {
  for await (const chunk of stream) {
    for (const bytes of chunk instanceof Uint8Array ? [chunk] : chunk) yield Buffer.from(bytes);
  }
}
