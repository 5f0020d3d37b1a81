import { DATA_FRAME_BYTES_MAX, type DeltaSameFrame, decodeDelta, NOTHING_RECEIVED } from '../delta/index.ts';
import { isFailure } from '../lib/errors.ts';
import type { FileSystem } from '../lib/files.ts';
import { observed } from '../lib/streams.ts';
import type { SignedStatement } from '../recovery-point/index.ts';
import type { Incoming, ReplicaPoint } from './description.ts';
import { replicaFailure } from './errors.ts';
import type { ReplicaLayout } from './layout.ts';
import { beginning, checkSameDelta, type Offer } from './offer.ts';
import { type OlderDisks, olderCopyChanged } from './older-copy.ts';
import { discardSession } from './publication.ts';
import { ReceiveSession } from './receive-session.ts';
import type { ReplicaTools } from './tools.ts';

export interface ReceiveOptions {
  readonly signal?: AbortSignal | undefined;
  /** Of the disks of which the sender was told that there are older copies here. */
  readonly older?: OlderDisks | undefined;
}

/** Takes the frames of a stream that goes on with a session, to its trailer. Throws what the decoder and the layers throw. */
export async function takeStream(
  session: ReceiveSession,
  source: AsyncIterable<Uint8Array>,
  { signal, older }: ReceiveOptions,
): Promise<{ readonly signed: SignedStatement; readonly receivedBytes: number }> {
  let receivedBytes = 0;
  const counted = observed(source, ({ length }) => {
    receivedBytes += length;
  });
  const resumed = session.durable;
  const memory = Buffer.allocUnsafeSlow(DATA_FRAME_BYTES_MAX);
  const { frames } = await decodeDelta(counted, {
    memory,
    received: (arrived) => {
      checkSameDelta(session.header, arrived, resumed.frames);
      return resumed;
    },
    ...(signal ? { signal } : {}),
  });
  for await (const frame of frames) {
    if (frame.type === 'same') await takeOlder(session, frame, older, memory);
    else if (frame.type !== 'trailer') await session.apply(frame);
    // What it says is checked before it is believed.
    else return { signed: frame.trailer.statement as unknown as SignedStatement, receivedBytes };
  }
  throw replicaFailure('REPLICA_DELTA_REFUSED', 'the stream ended without a trailer', {});
}

/** What the sender has left out because an older copy has it; proven before it counts. */
async function takeOlder(
  session: ReceiveSession,
  { disk, offset, length, leaves, number }: DeltaSameFrame,
  older: OlderDisks | undefined,
  memory: Buffer,
): Promise<void> {
  const { diskId } = session.header.disks[disk]!;
  if (!older) throw olderCopyChanged(`no older copy of ${diskId} is offered`);
  const data = memory.subarray(0, length);
  await older.take(diskId, offset, data, leaves);
  await session.apply({ type: 'data', number, disk, offset, data }, true);
}

/** Makes the session of a delta that is taken; nothing of it has arrived. */
export async function createSession(
  { files, clock }: Pick<ReplicaTools, 'files' | 'clock'>,
  layout: ReplicaLayout,
  { header, skewMs }: Offer,
  newest: ReplicaPoint | undefined,
): Promise<Incoming> {
  const { session, pointId } = header;
  const created = await ReceiveSession.create({
    ...{ files, header, skewMs, begins: beginning(header, newest) },
    directory: layout.session(session),
    nowMs: clock.wallMs(),
  });
  await created.release();
  return { session, pointId, progress: NOTHING_RECEIVED };
}

/** Opens a session to go on with; one whose files do not fit its record is discarded, and `onDiscard` told before. */
export async function openSession(
  files: FileSystem,
  layout: ReplicaLayout,
  session: string,
  onDiscard: () => void,
): Promise<ReceiveSession> {
  try {
    return await ReceiveSession.open({ files, directory: layout.session(session) });
  } catch (error) {
    if (isFailure(error, 'QCOW2_RESUME_MISMATCH', 'REPLICA_SESSION_UNKNOWN')) {
      onDiscard();
      await discardSession(files, layout, session);
    }
    throw error;
  }
}

/**
 * Whether what is durable of a delta cannot be trusted after a failure: after a failed sync, for damage, and where the delta
 * was refused or its source is fenced off. Pure.
 */
export function isLost(error: unknown, isFenced: boolean): boolean {
  // A stream that broke the rules says nothing against the frames before it, which were checked one by one.
  if (isFailure(error, 'DELTA_CORRUPT', 'DELTA_INVALID', 'DELTA_TRUNCATED')) return false;
  return isFenced || !isFailure(error) || error.kind === 'corrupt' || error.kind === 'refused';
}
