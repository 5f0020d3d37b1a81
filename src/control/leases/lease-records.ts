import { join } from 'node:path';
import Type from 'typebox';
import type { FileSystem } from '../../lib/files.ts';
import { isId } from '../../lib/random.ts';
import { loadRecord, recordKind, storeRecord } from '../../lib/records.ts';
import { Claim, Vote } from '../../recovery-point/index.ts';
import { type AlertSink, failureOf } from '../base/alerts.ts';
import { controlFailure } from '../errors.ts';

const LeaseEnd = Type.Object({
  siteId: Type.String(),
  claim: Claim,
  begunAtMs: Type.Optional(Type.Integer()),
  /** It is the other site that may run the machine: when it has heard, the witness of those leases hears it too. */
  witnessSiteId: Type.Optional(Type.String()),
});
/** Who knows of leases which are no more: by which claim the machine is held, and which leases those were, if that is known. */
export type LeaseEnd = Readonly<Type.Static<typeof LeaseEnd>>;

const LeaseHold = Type.Object({
  witnessSiteId: Type.String(),
  /** Between which sites those leases were. */
  siteIds: Type.Array(Type.String(), { minItems: 2, maxItems: 2 }),
  /** By which claim it was held here when that was to be told. */
  claim: Type.Optional(Claim),
});
/** A witness that knows of leases which are no more, as may the other of their two sites: the machine is held here, or was. */
export type LeaseHold = Readonly<Type.Static<typeof LeaseHold>>;

const VoteRecordSchema = Type.Object({
  machineId: Type.String(),
  machineName: Type.String(),
  vote: Vote,
  /** How long a lease of this machine lasts; a site that starts waits for so long before it gives the right to another. */
  leaseMs: Type.Integer({ minimum: 1 }),
  /** The two sites that may run the machine, in the order of their ids. */
  siteIds: Type.Array(Type.String(), { minItems: 2, maxItems: 2 }),
  witnessSiteId: Type.String(),
  /** Which leases those are that were renewed last, if whoever holds the machine has said: an end of earlier ones is none of theirs. */
  begunAtMs: Type.Optional(Type.Integer()),
  /** This site asks for the right by this claim, or has asked and must still say that it does not want it. */
  seeking: Type.Optional(Claim),
  /** This site holds the machine for good, and the witness has not heard of it. */
  toTell: Type.Optional(Claim),
  /** The last claim that the witness has been told of in this way. */
  told: Type.Optional(Claim),
  /** Witnesses, and recovery sites, that have not heard yet that leases of which they know have ended. */
  toEnd: Type.Optional(Type.Array(LeaseEnd)),
  /** Witnesses of earlier leases that have not heard yet that this site holds the machine, whatever they have lent. */
  toHold: Type.Optional(Type.Array(LeaseHold)),
  /** The leases are at an end; only what a witness must still hear keeps the record. */
  ended: Type.Optional(Type.Literal(true)),
});
/** `votes/<machine>.json`: what this site has promised another of the right to run a machine, and asks for itself. */
export type VoteRecord = Type.Static<typeof VoteRecordSchema>;

/** What witnesses and recovery sites must still hear of a machine, or hear again. */
export type Owed = Partial<Pick<VoteRecord, 'toTell' | 'told' | 'toEnd' | 'toHold'>>;

const VOTE_RECORD = recordKind('vote', 4, VoteRecordSchema, (older) => older);

/** A site is to hear once that leases have ended, by what is known last. */
export function withEnd(
  ends: readonly LeaseEnd[] | undefined,
  { siteId, claim, begunAtMs, witnessSiteId }: LeaseEnd,
): LeaseEnd[] {
  const which = begunAtMs === undefined ? {} : { begunAtMs };
  const next = witnessSiteId === undefined ? {} : { witnessSiteId };
  return [...(withoutEnds(ends, [siteId]) ?? []), { siteId, claim, ...which, ...next }];
}

function withoutEnds(
  ends: readonly LeaseEnd[] | undefined,
  siteIds: readonly string[],
): LeaseEnd[] | undefined {
  const others = ends?.filter((end) => !siteIds.includes(end.siteId)) ?? [];
  return others.length > 0 ? others : undefined;
}

export type Parties = Pick<VoteRecord, 'witnessSiteId' | 'siteIds'>;

export function isSameParties(one: Parties, other: Parties): boolean {
  const siteIds = other.siteIds.toSorted();
  const isSame = one.siteIds.toSorted().every((siteId, index) => siteId === siteIds[index]);
  return isSame && one.witnessSiteId === other.witnessSiteId;
}

export function sitesOf({ witnessSiteId, siteIds }: Parties): readonly string[] {
  return [witnessSiteId, ...siteIds];
}

/**
 * What others must hear of other leases than those of `parties`, whatever becomes of the record. `heard`: who knows more than the end of
 * earlier ones.
 */
export function owedBy(
  record: VoteRecord | undefined,
  parties: Parties,
  heard: readonly string[] = [parties.witnessSiteId],
): Pick<VoteRecord, 'toEnd' | 'toHold'> {
  if (!record) return {};
  const { toTell, witnessSiteId, siteIds } = record;
  const toEnd = withoutEnds(record.toEnd, heard);
  const held = toTell ? [{ witnessSiteId, siteIds, claim: toTell }] : [];
  const toHold = withoutHold([...(record.toHold ?? []), ...held], parties);
  return { ...(toEnd ? { toEnd } : {}), ...(toHold ? { toHold } : {}) };
}

export function withoutHold(
  holds: readonly LeaseHold[] | undefined,
  parties: Parties,
): LeaseHold[] | undefined {
  const others = holds?.filter((hold) => !isSameParties(hold, parties)) ?? [];
  return others.length > 0 ? others : undefined;
}

/** The votes of a site, on disk. */
export class VoteRecords {
  readonly #files: FileSystem;
  readonly #directory: string;
  readonly #records: Map<string, VoteRecord>;
  readonly #unreadable: ReadonlySet<string>;
  /** Of machines whose record could not be stored: what is on disk may be what was there before, or not. */
  readonly #unsure = new Set<string>();

  private constructor(
    files: FileSystem,
    directory: string,
    records: Map<string, VoteRecord>,
    unreadable: ReadonlySet<string>,
  ) {
    this.#files = files;
    this.#directory = directory;
    this.#records = records;
    this.#unreadable = unreadable;
  }

  /** One that cannot be read is an alert, and nothing is granted by it. */
  static async open(
    { files, alerts }: { readonly files: FileSystem; readonly alerts: AlertSink },
    dataDirectory: string,
  ): Promise<VoteRecords> {
    const directory = join(dataDirectory, 'votes');
    await files.makeDirectory(directory);
    // What an earlier process has renamed there, and was killed before it synced, is promised from now on.
    await files.syncDirectory(directory);
    const records = new Map<string, VoteRecord>();
    const unreadable = new Set<string>();
    for (const name of ((await files.list(directory)) ?? []).toSorted()) {
      const machineId = name.replace(/\.json$/, '');
      if (!isId(machineId)) continue;
      try {
        const record = await loadRecord(files, join(directory, name), VOTE_RECORD);
        if (record) records.set(machineId, record);
        alerts.clear(`vote:${machineId}`);
      } catch (error) {
        unreadable.add(machineId);
        alerts.raise(`vote:${machineId}`, 'critical', failureOf(error), machineId);
      }
    }
    return new VoteRecords(files, directory, records, unreadable);
  }

  list(): readonly VoteRecord[] {
    return [...this.#records.values()];
  }

  /** Throws LEASE_VOTE_UNREADABLE: what was promised is not known, and may not be promised to another. */
  get(machineId: string): VoteRecord | undefined {
    if (!this.#unreadable.has(machineId)) return this.#records.get(machineId);
    const said = `what this site has promised of machine ${machineId} cannot be read`;
    throw controlFailure('LEASE_VOTE_UNREADABLE', said, { context: { path: this.#path(machineId) } });
  }

  /** Storing or removing it has failed: whoever answers by what is known here makes that durable first. */
  isUnsure(machineId: string): boolean {
    return this.#unsure.has(machineId);
  }

  /** Durable on return. */
  async store(record: VoteRecord): Promise<VoteRecord> {
    const { machineId } = record;
    this.#unsure.add(machineId);
    await storeRecord(this.#files, this.#path(machineId), VOTE_RECORD, record);
    this.#unsure.delete(machineId);
    this.#records.set(machineId, record);
    return record;
  }

  /** Durable on return. */
  async remove(machineId: string): Promise<void> {
    this.#unsure.add(machineId);
    await this.#files.remove(this.#path(machineId));
    await this.#files.syncDirectory(this.#directory);
    this.#unsure.delete(machineId);
    this.#records.delete(machineId);
  }

  #path(machineId: string): string {
    return join(this.#directory, `${machineId}.json`);
  }
}
