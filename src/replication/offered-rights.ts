import Type from 'typebox';
import { Value } from 'typebox/value';
import type { Json } from '../lib/canonical-json.ts';
import { ID_PATTERN } from '../lib/random.ts';
import type { CallHandler, PeerClient } from '../peer/index.ts';
import { afterHearing, afterWithdrawal, Claim, type Tenure } from '../recovery-point/index.ts';
import {
  type Replica,
  type ReplicaDecision,
  type Replicas,
  tenureOfReplica,
  withOffer,
  withTenure,
} from '../replica/index.ts';
import { replicationFailure } from './errors.ts';
import type { HomeMachine, HomeMachines } from './home-machines.ts';
import type { RightAnswer, RightsTarget } from './target.ts';

const Id = Type.String({ pattern: ID_PATTERN });
const ClaimBody = Type.Object({ machineId: Id, claim: Claim });
const OfferBody = Type.Object({ machineId: Id, claim: Claim, offer: Claim, pointId: Id });
const WithdrawBody = Type.Object({ machineId: Id, withdrawal: Claim });
const HINDRANCE_MAX = 2000;
const Answer = Type.Object({
  claim: Claim,
  state: Type.Union(
    ['holds', 'cedes', 'follows', 'fenced'].map((state) => Type.Literal(state as RightAnswer['state'])),
  ),
  hindrance: Type.Optional(Type.String({ maxLength: HINDRANCE_MAX })),
});

export interface OfferedRightsTools {
  readonly siteId: string;
  readonly replicas: Pick<Replicas, 'need'>;
  readonly home: HomeMachines;
  /** After something has become durable: an offer, its end, or that this site does not hold the machine any more. */
  readonly onChanged: (replica: Replica) => void;
  /** Why the machine of the newest point would not start here, if that is so. Never rejects. */
  readonly hindrance: (replica: Replica) => Promise<string | undefined>;
}

/** What other sites say of the right to run their machines, as calls that a peer may make: docs/protocol.md. Nothing starts by them. */
export class OfferedRights {
  readonly #o: OfferedRightsTools;

  constructor(o: OfferedRightsTools) {
    this.#o = o;
  }

  get calls(): Readonly<Record<string, CallHandler>> {
    return {
      'right.claim': (peer, body) => this.#claimed(peer.siteId, checked(ClaimBody, body)),
      'right.offer': (peer, body) => this.#offered(peer.siteId, checked(OfferBody, body)),
      'right.withdraw': (peer, body) => this.#withdrawn(peer.siteId, checked(WithdrawBody, body)),
    };
  }

  async #claimed(peerId: string, { machineId, claim }: Type.Static<typeof ClaimBody>): Promise<Json> {
    if (claim.siteId !== peerId) throw invalid();
    const answer = answerOf(await this.hear(machineId, claim));
    if (await this.#homeOf(claim.siteId, machineId)) return answer;
    const hindrance = await this.#o.hindrance(this.#o.replicas.need(machineId));
    return { ...answer, ...(hindrance ? { hindrance: hindrance.slice(0, HINDRANCE_MAX) } : {}) };
  }

  /**
   * Another site holds the machine by that claim: who holds it here by a lower one is fenced. Durable on return. Throws
   * REPLICATION_NOT_YOURS, REPLICA_UNKNOWN.
   */
  async hear(machineId: string, claim: Claim): Promise<Tenure> {
    const home = await this.#homeOf(claim.siteId, machineId);
    if (home) {
      const tenure = await home.hear(claim);
      await home.upon?.update(this.#hearing(claim));
      // The machine has been removed meanwhile.
      if (home.upon && home.upon.record.adopted === undefined) this.#o.onChanged(home.upon);
      return tenure;
    }
    const replica = this.#needOf(claim.siteId, machineId);
    await this.#changing(replica, this.#hearing(claim));
    // It may have been adopted meanwhile, by the claim before.
    const adopted = await this.#homeOf(claim.siteId, machineId);
    return adopted ? adopted.hear(claim) : tenureOfReplica(replica.record, this.#o.siteId);
  }

  #hearing(claim: Claim): ReplicaDecision {
    return (record) => {
      const before = tenureOfReplica(record, this.#o.siteId);
      const after = afterHearing(before, this.#o.siteId, claim);
      return after === before ? undefined : withTenure(record, after);
    };
  }

  async #offered(
    peerId: string,
    { machineId, claim, offer, pointId }: Type.Static<typeof OfferBody>,
  ): Promise<Json> {
    const fits =
      claim.siteId === peerId && offer.siteId === this.#o.siteId && offer.epoch === claim.epoch + 1;
    if (!fits) throw invalid();
    // It was taken, and is at home here since.
    const home = await this.#homeOf(peerId, machineId);
    if (home) return answerOf(home.tenure);
    const replica = this.#needOf(peerId, machineId);
    return this.#changing(replica, (record) => {
      const change = withOffer(record, this.#o.siteId, { claim: offer, pointId });
      if (change) this.#checkLastState(replica, pointId);
      return change;
    });
  }

  async #withdrawn(
    peerId: string,
    { machineId, withdrawal }: Type.Static<typeof WithdrawBody>,
  ): Promise<Json> {
    if (withdrawal.siteId !== peerId) throw invalid();
    const home = await this.#homeOf(peerId, machineId);
    if (home) return answerOf(home.tenure);
    const replica = this.#needOf(peerId, machineId);
    return this.#changing(replica, (record) => {
      const before = tenureOfReplica(record, this.#o.siteId);
      const after = afterWithdrawal(before, this.#o.siteId, withdrawal);
      return after === before ? undefined : withTenure(record, after);
    });
  }

  async #changing(replica: Replica, change: ReplicaDecision): Promise<JsonObject> {
    const before = replica.record;
    await replica.update(change);
    if (replica.record !== before) this.#o.onChanged(replica);
    return answerOf(tenureOfReplica(replica.record, this.#o.siteId));
  }

  /** Throws REPLICATION_NOT_YOURS for whoever has nothing to do with it. */
  async #homeOf(peerId: string, machineId: string): Promise<HomeMachine | undefined> {
    const home = this.#o.home.of(machineId);
    if (home && !home.concerns(peerId)) throw notYours(machineId);
    await home?.settled();
    return home;
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
    throw notYours(machineId);
  }
}

type JsonObject = { readonly [member: string]: Json };

function answerOf({ claim, state }: Tenure): JsonObject {
  return { claim: { ...claim }, state };
}

function notYours(machineId: string) {
  const said = 'the right to run this machine is not this peer’s to speak of';
  return replicationFailure('REPLICATION_NOT_YOURS', said, { context: { machineId } });
}

/** The same calls, at a peer. */
export function rightsAt(client: Pick<PeerClient, 'call'>): RightsTarget {
  const ask = async (call: string, body: { readonly [key: string]: Json }, signal?: AbortSignal) =>
    checked(Answer, await client.call(call, body, signal ? { signal } : {}));
  return {
    claim: (machineId, claim, signal) => ask('right.claim', { machineId, claim: { ...claim } }, signal),
    offer: (machineId, { claim, offer, pointId }, signal) =>
      ask('right.offer', { machineId, claim: { ...claim }, offer: { ...offer }, pointId }, signal),
    withdraw: (machineId, withdrawal, signal) =>
      ask('right.withdraw', { machineId, withdrawal: { ...withdrawal } }, signal),
  };
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
