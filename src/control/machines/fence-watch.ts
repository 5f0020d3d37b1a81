import { type Failure, isFailure } from '../../lib/errors.ts';
import { notHeldFailure, type ProtectedMachine } from '../../replication/index.ts';
import type { AlertSink } from '../base/alerts.ts';
import type { Audit } from '../base/audit.ts';
import { endProcess, type GuestEndTools } from './guest-end.ts';

export type FencedMachine = Pick<ProtectedMachine, 'record' | 'running'>;

export interface FenceTools extends GuestEndTools {
  readonly alerts: AlertSink;
  readonly audit: Pick<Audit, 'note'>;
}

/** What refuses copies and their sending as well: a person is told of it once. */
export function isToldOfMachine(failure: Failure): boolean {
  return failure.code === 'PROTECTION_FENCED' || failure.code === 'PROTECTION_CEDED';
}

/** How long a guest that may not run any more has to shut down. */
export const FENCED_GRACE_MS = 60_000;

/** A guest that could not be ended is tried again after this. */
export const FENCE_AGAIN_AFTER_MS = 5_000;

/**
 * Machines that another site has brought up: as soon as this site has heard of it, their guests are ended here, lest both take
 * writes; what they have written stays in their disks, and a person is told. Also one that somebody starts again.
 */
export class FenceWatch {
  readonly #machine: FencedMachine;
  readonly #tools: FenceTools;

  constructor(machine: FencedMachine, tools: FenceTools) {
    this.#machine = machine;
    this.#tools = tools;
  }

  /** To be asked after each look at the machine. Returns when to look again, unless something happens before. */
  async look(signal: AbortSignal): Promise<number> {
    const { record, running } = this.#machine;
    const { machineId, name } = record;
    const { alerts, audit, log } = this.#tools;
    const failure = notHeldFailure(record);
    const isOver = record.tenure?.state === 'follows' && !running;
    if (!failure || isOver) {
      this.clearAlert();
      return Number.POSITIVE_INFINITY;
    }
    // Between two sites a machine runs nowhere: that is wanted, and not for long.
    const isUnderWay = record.tenure?.state === 'cedes' && !running;
    alerts.raise(this.#key, isUnderWay ? 'warning' : 'critical', failure, machineId);
    if (!running) return Number.POSITIVE_INFINITY;
    log.warn('machine.fenced', { machine: name, reason: failure.message });
    try {
      const outcome = await endProcess(this.#tools, running, FENCED_GRACE_MS, signal);
      audit.note({ actor: 'site', act: 'vm.fence', subject: machineId, details: { outcome } });
      return Number.POSITIVE_INFINITY;
    } catch (error) {
      if (!isFailure(error) || error.kind === 'cancelled') throw error;
      log.error('machine.not-ended', { machine: name, reason: error.message });
      return FENCE_AGAIN_AFTER_MS;
    }
  }

  clearAlert(): void {
    this.#tools.alerts.clear(this.#key);
  }

  get #key(): string {
    return `fenced:${this.#machine.record.machineId}`;
  }
}
