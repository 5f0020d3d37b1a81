import type { Replica, Replicas } from '../../src/replica/index.ts';

/**
 * Calls `onReplica` once with each replica that a delta is offered to, and tells of each delta that is accepted on top of another
 * point than the newest.
 */
export function watchOffers(
  replicas: Replicas,
  onReplica: (replica: Replica) => void,
  onWrong: (said: string) => void,
): void {
  const forOffer = replicas.forOffer.bind(replicas);
  const known = new WeakSet<Replica>();
  replicas.forOffer = async (header, about) => {
    const replica = await forOffer(header, about);
    if (known.has(replica)) return replica;
    known.add(replica);
    onReplica(replica);
    const offer = replica.offer.bind(replica);
    replica.offer = async (offered) => {
      const answer = await offer(offered);
      const { pointId, parent } = offered.header;
      const newest = replica.newest?.statement.pointId;
      if (answer.kind === 'accept' && parent?.pointId !== newest)
        onWrong(`${pointId} was accepted on top of ${parent?.pointId}; the newest point is ${newest}`);
      return answer;
    };
    return replica;
  };
}
