import type { DeltaHeader } from '../delta/index.ts';
import type { UploadChunk } from '../peer/index.ts';
import type { Acknowledgement } from '../replica/index.ts';
import { conflictFailure } from './conflict.ts';
import { replicationFailure } from './errors.ts';
import { olderOf } from './older-leaves.ts';
import type { SendSession, SentDelta } from './send-session.ts';
import type { OfferDetails, ReplicationTarget } from './target.ts';

export interface TransferRequest {
  readonly target: ReplicationTarget;
  readonly sending: SendSession;
  readonly header: Omit<DeltaHeader, 'firstFrame'>;
  readonly details: OfferDetails;
  readonly compression: boolean;
  /** The stream at the pace that it is to have. */
  readonly throttled: (stream: AsyncIterable<Uint8Array>) => AsyncIterable<UploadChunk>;
  readonly signal: AbortSignal | undefined;
}

/**
 * Offers a delta and brings it to the target, from the frame on that is durable there; one that the target has already is only
 * read. Throws REPLICATION_CONFLICT with the evidence, REPLICATION_ACK_WRONG.
 */
export async function transferDelta(
  request: TransferRequest,
): Promise<{ readonly acknowledgement: Acknowledgement; readonly sent: SentDelta }> {
  const { target, sending, details, signal } = request;
  const header = { ...request.header, firstFrame: 0 };
  const answer = await target.offer(header, details, signal);
  if (answer.kind === 'conflict')
    throw conflictFailure(details.machineName, answer.conflict, details.forwarded !== undefined);
  if (answer.kind === 'already') {
    return { acknowledgement: answer.newest, sent: await sending.readThrough() };
  }
  const older = olderOf(target, header, answer.older, signal);
  const stream = request.throttled(sending.stream(answer.progress, request.compression, older));
  const acknowledgement = await target.upload(header.machineId, header.session, stream, signal);
  const { sent } = sending;
  if (sent) return { acknowledgement, sent };
  throw replicationFailure('REPLICATION_ACK_WRONG', 'an acknowledgement came before the delta had been sent');
}

/** Throws REPLICATION_ACK_WRONG unless it is this very point that was acknowledged. */
export function checkAcknowledged(
  { pointId, statementDigest }: Acknowledgement,
  sentId: string,
  digest: string,
): void {
  if (pointId === sentId && statementDigest === digest) return;
  const said = `the target acknowledged something else than ${sentId}`;
  throw replicationFailure('REPLICATION_ACK_WRONG', said, {
    context: { sent: sentId, acknowledged: pointId },
  });
}
