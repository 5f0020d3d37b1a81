import type { DeltaHeader } from '../../src/delta/index.ts';
import type { UploadChunk } from '../../src/peer/index.ts';
import type { Replicas } from '../../src/replica/index.ts';
import type { OfferDetails, ReplicationTarget, SeedTarget } from '../../src/replication/index.ts';

/** A target that is a replica store in the same process: the whole path but the wire. */
export class DirectTarget implements ReplicationTarget {
  readonly siteId: string;
  readonly #sourceSiteId: string;
  readonly #replicas: Replicas;

  constructor(o: { siteId: string; sourceSiteId: string; replicas: Replicas }) {
    this.siteId = o.siteId;
    this.#sourceSiteId = o.sourceSiteId;
    this.#replicas = o.replicas;
  }

  async describe(machineId: string) {
    // A replica that cannot be opened must not look like one that was never there.
    if (this.#replicas.broken.some((broken) => broken.machineId === machineId))
      this.#replicas.need(machineId);
    return this.#replicas.get(machineId)?.describe() ?? null;
  }

  async offer(header: DeltaHeader, { machineName, retention }: OfferDetails) {
    const replica = await this.#replicas.forOffer(header, {
      sourceSiteId: this.#sourceSiteId,
      machineName,
      retention,
    });
    return replica.offer({ header, skewMs: 0 });
  }

  get seeds(): SeedTarget {
    return {
      announce: async (announcement, { machineName, retention }, leaves) => {
        const replica = await this.#replicas.forOffer(announcement.signed.statement, {
          sourceSiteId: this.#sourceSiteId,
          machineName,
          retention,
        });
        return replica.announceSeed({ ...announcement, skewMs: 0 }, flat(leaves));
      },
      keep: (machineId, pointId) => this.#replicas.need(machineId).seeding.keep(pointId),
    };
  }

  upload(machineId: string, session: string, stream: AsyncIterable<UploadChunk>, signal?: AbortSignal) {
    return this.#replicas.need(machineId).receive(session, flat(stream), signal);
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
    upload,
  };
}

/** Copies, as a network does: the memory of a chunk is the sender's again when the next one is asked for. */
async function* flat(stream: AsyncIterable<UploadChunk>): AsyncGenerator<Uint8Array> {
  for await (const chunk of stream) {
    for (const bytes of chunk instanceof Uint8Array ? [chunk] : chunk) yield Buffer.from(bytes);
  }
}
