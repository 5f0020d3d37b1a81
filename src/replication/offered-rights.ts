import Type from 'typebox';
import { Value } from 'typebox/value';
import type { Json } from '../lib/canonical-json.ts';
import { ID_PATTERN } from '../lib/random.ts';
import type { CallHandler, PeerClient } from '../peer/index.ts';
import { afterWithdrawal, Claim } from '../recovery-point/index.ts';
import {
  type Replica,
  type ReplicaDecision,
  type Replicas,
  tenureOfReplica,
  withOffer,
  withTenure,
} from '../replica/index.ts';
import { replicationFailure } from './errors.ts';
import type { Cession } from './machine-right.ts';

const Id = Type.String({ pattern: ID_PATTERN });
const OfferBody = Type.Object({ machineId: Id, claim: Claim, offer: Claim, pointId: Id });
const WithdrawBody = Type.Object({ machineId: Id, withdrawal: Claim });
const Answer = Type.Object({ claim: Claim });

/** The rights that other sites offer to this one, as calls that a peer may make: docs/protocol.md. Nothing runs by them. */
export class OfferedRights {
  readonly #o: {
    readonly siteId: string;
    readonly replicas: Pick<Replicas, 'need'>;
    /** After an offer was stored, or let go. */
    readonly onChanged: (replica: Replica) => void;
  };

  constructor(o: {
    siteId: string;
    replicas: Pick<Replicas, 'need'>;
    onChanged: (replica: Replica) => void;
  }) {
    this.#o = o;
  }

  get calls(): Readonly<Record<string, CallHandler>> {
    return {
      'right.offer': (peer, body) => this.#offered(peer.siteId, checked(OfferBody, body)),
      'right.withdraw': (peer, body) => this.#withdrawn(peer.siteId, checked(WithdrawBody, body)),
    };
  }

  async #offered(
    peerId: string,
    { machineId, claim, offer, pointId }: Type.Static<typeof OfferBody>,
  ): Promise<Json> {
    const replica = this.#needOf(peerId, machineId);
    const fits =
      claim.siteId === peerId && offer.siteId === this.#o.siteId && offer.epoch === claim.epoch + 1;
    if (!fits) throw invalid();
    return this.#changing(replica, (record) => {
      const change = withOffer(record, { claim: offer, pointId });
      if (change) this.#checkLastState(replica, pointId);
      return change;
    });
  }

  #withdrawn(peerId: string, { machineId, withdrawal }: Type.Static<typeof WithdrawBody>): Promise<Json> {
    const replica = this.#needOf(peerId, machineId);
    if (withdrawal.siteId !== peerId) throw invalid();
    return this.#changing(replica, (record) => {
      const before = tenureOfReplica(record);
      const after = afterWithdrawal(before, withdrawal);
      return after === before ? undefined : withTenure(record, after);
    });
  }

  /** Answers with the highest claim that is known here, and durable. */
  async #changing(replica: Replica, change: ReplicaDecision): Promise<Json> {
    const before = replica.record;
    await replica.update(change);
    if (replica.record !== before) this.#o.onChanged(replica);
    return { claim: { ...tenureOfReplica(replica.record).claim } };
  }

  #checkLastState(replica: Replica, pointId: string): void {
    replica.checkUsable();
    if (replica.newest?.statement.pointId === pointId) return;
    const said = `point ${pointId} is not the newest one of ${replica.record.machineName} here`;
    throw replicationFailure('REPLICATION_REQUEST_INVALID', said);
  }

  /** Throws REPLICATION_NOT_YOURS for whoever does not bring its own points. */
  #needOf(peerId: string, machineId: string): Replica {
    const replica = this.#o.replicas.need(machineId);
    const { sourceSiteId, viaSiteId } = replica.record;
    if (sourceSiteId === peerId && viaSiteId === undefined) return replica;
    const said = 'the right to run this machine is not this peer’s to offer';
    throw replicationFailure('REPLICATION_NOT_YOURS', said, { context: { machineId } });
  }
}

/** Tells the site of its offer. Returns the highest claim that it knows; when that is the offer, it has taken it. */
export async function tellOffer(
  client: Pick<PeerClient, 'call'>,
  machineId: string,
  { claim, offer, pointId }: Cession,
  signal?: AbortSignal,
): Promise<Claim> {
  const body = { machineId, claim: { ...claim }, offer: { ...offer }, pointId };
  return answered(await client.call('right.offer', body, signal ? { signal } : {}));
}

/** Asks the site that was offered a right to let it go. Returns the highest claim that it knows: the withdrawal, if it does. */
export async function askToLetGo(
  client: Pick<PeerClient, 'call'>,
  machineId: string,
  withdrawal: Claim,
  signal?: AbortSignal,
): Promise<Claim> {
  const body = { machineId, withdrawal: { ...withdrawal } };
  return answered(await client.call('right.withdraw', body, signal ? { signal } : {}));
}

function answered(answer: Json): Claim {
  return checked(Answer, answer).claim;
}

function checked<S extends Type.TSchema>(schema: S, body: Json): Type.Static<S> {
  if (Value.Check(schema, body)) return body;
  throw invalid();
}

function invalid() {
  return replicationFailure(
    'REPLICATION_REQUEST_INVALID',
    'what the peer says of a right does not have the form agreed on',
  );
}
