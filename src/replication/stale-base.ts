import { isFailure } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import type { Deliveries } from './deliveries.ts';
import { inDoubt } from './disk-changes.ts';
import { replicationFailure } from './errors.ts';
import type { MachineProcess } from './machine-process.ts';
import type { MachineRecord } from './records.ts';

interface Ground {
  readonly tools: { readonly log: Log };
  readonly process: Pick<MachineProcess, 'presence'>;
  readonly deliveries: Pick<Deliveries, 'doubtOfAcknowledged'>;
  readonly record: () => MachineRecord;
  /** Durable on return. */
  readonly store: (record: MachineRecord) => Promise<void>;
}

/** Whatever finds a stale base leaves its word in the record, so that it is not forgotten when the machine stops. */
export async function watchingForStaleBase<T>(ground: Ground, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (isFailure(error, 'PROTECTION_STALE_BASE', 'PROTECTION_DISK_GONE')) {
      const isGone = error.code === 'PROTECTION_DISK_GONE';
      ground.process.presence = { state: 'stale', reason: error.message, ...(isGone ? { isGone } : {}) };
      const record = ground.record();
      ground.tools.log.error('machine.stale-base', { machine: record.name, reason: error.message });
      const doubted = inDoubt(record, error);
      if (doubted !== record) await ground.store(doubted);
    }
    throw error;
  }
}

/** Throws PROTECTION_STALE_BASE while it is not known that whatever ran has written nothing below the tips. */
export async function clearSuspicion({ tools, deliveries, record, store }: Ground): Promise<void> {
  const { suspect, gone, ...cleared } = record();
  if (suspect === undefined) return;
  const doubt = await deliveries.doubtOfAcknowledged(gone);
  if (doubt !== undefined) throw replicationFailure('PROTECTION_STALE_BASE', `${suspect}; ${doubt}`);
  await store(cleared);
  tools.log.info('machine.base-intact', { machine: cleared.name });
}
