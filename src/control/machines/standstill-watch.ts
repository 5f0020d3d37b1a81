import { dirname } from 'node:path';
import type { Clock } from '../../lib/clock.ts';
import { isFailure } from '../../lib/errors.ts';
import type { Log } from '../../lib/log.ts';
import { type GuestStandstill, type ProtectedMachine, standstillOf } from '../../replication/index.ts';
import type { AlertSink } from '../base/alerts.ts';
import type { Audit } from '../base/audit.ts';
import { controlFailure } from '../errors.ts';

export type WatchedGuest = Pick<ProtectedMachine, 'record' | 'presence' | 'chain' | 'continueGuest'>;

export interface StandstillTools {
  readonly clock: Clock;
  readonly log: Log;
  readonly alerts: AlertSink;
  readonly audit: Pick<Audit, 'note'>;
  /** Space on the file system that holds this directory, or file. */
  readonly spaceAt: (path: string) => Promise<{ readonly freeBytes: number; readonly totalBytes: number }>;
}

/** Room is looked for this often; a guest that stops again soon after it was continued waits longer each time. */
export const ROOM_LOOK_EVERY_MS = 5_000;
const PAUSE_MAX_MS = 5 * 60_000;
/** A guest that has run for so long was continued with success. */
const PROVEN_AFTER_MS = 60_000;

/** A guest is continued when so much is free, or this part of a smaller file system. */
const ROOM_BYTES = 256 * 1024 * 1024;
const ROOM_FRACTION = 0.1;

/**
 * Guests that stand still because a disk of theirs could not grow: a person is told, and they are continued when there is room again. Nobody
 * else can do that while the site holds the monitor, and nothing is lost by it: QEMU does again what it could not write. A guest that
 * stands still for any other reason is left alone.
 */
export class StandstillWatch {
  readonly #machine: WatchedGuest;
  readonly #tools: StandstillTools;
  #continuedAtMs = Number.NEGATIVE_INFINITY;
  #pauseMs = 0;

  constructor(machine: WatchedGuest, tools: StandstillTools) {
    this.#machine = machine;
    this.#tools = tools;
  }

  /** To be asked after each look at the machine. Returns when to look again if nothing is heard of it. */
  async look(): Promise<number> {
    const { presence, record } = this.#machine;
    const key = `standstill:${record.machineId}`;
    const standstill = standstillOf(presence);
    if (standstill?.why === 'no-space') return this.#awaitRoom(key, standstill);
    if (standstill?.why === 'io-error') {
      const said = `${record.name} stands still after an I/O error of ${namesOf(standstill)}`;
      this.#tools.alerts.raise(key, 'critical', controlFailure('MACHINE_IO_ERROR', said), record.machineId);
    } else {
      this.#tools.alerts.clear(key);
    }
    return Number.POSITIVE_INFINITY;
  }

  async #awaitRoom(key: string, standstill: GuestStandstill): Promise<number> {
    const { clock, alerts, audit } = this.#tools;
    const { machineId, name } = this.#machine.record;
    const directories = this.#directories(standstill);
    const said = `${name} stands still: ${namesOf(standstill)} cannot grow, no space is left in ${directories.join(', ')}`;
    alerts.raise(key, 'critical', controlFailure('MACHINE_NO_SPACE', said), machineId);
    if (!(await this.#hasRoom(directories))) return ROOM_LOOK_EVERY_MS;
    const nowMs = clock.monotonicMs();
    const sinceMs = nowMs - this.#continuedAtMs;
    if (sinceMs >= PROVEN_AFTER_MS + this.#pauseMs) this.#pauseMs = 0;
    if (sinceMs < this.#pauseMs) return this.#pauseMs - sinceMs;
    if (!(await this.#continues())) return ROOM_LOOK_EVERY_MS;
    this.#continuedAtMs = nowMs;
    this.#pauseMs = Math.min(PAUSE_MAX_MS, Math.max(ROOM_LOOK_EVERY_MS, 2 * this.#pauseMs));
    audit.note({ actor: 'site', act: 'vm.continue', subject: machineId });
    // That it runs is told by an event, and looked at then.
    return ROOM_LOOK_EVERY_MS;
  }

  async #continues(): Promise<boolean> {
    try {
      return await this.#machine.continueGuest();
    } catch (error) {
      if (!isFailure(error)) throw error;
      const { name: machine } = this.#machine.record;
      this.#tools.log.warn('machine.not-continued', { machine, reason: error.message });
      return false;
    }
  }

  /** Where the files lie that could not grow. */
  #directories({ diskIds }: GuestStandstill): string[] {
    const { disks } = this.#machine.record;
    const failed = disks.filter(({ diskId }) => diskIds.length === 0 || diskIds.includes(diskId));
    const tips = failed.flatMap(({ diskId }) => this.#machine.chain(diskId).at(-1) ?? []);
    return [...new Set(tips.map(({ path }) => dirname(path)))];
  }

  async #hasRoom(directories: readonly string[]): Promise<boolean> {
    for (const directory of directories) {
      try {
        const { freeBytes, totalBytes } = await this.#tools.spaceAt(directory);
        if (freeBytes < Math.min(ROOM_BYTES, totalBytes * ROOM_FRACTION)) return false;
      } catch (error) {
        // What cannot be looked at has no room that anybody knows of.
        if (!isFailure(error)) throw error;
        return false;
      }
    }
    return true;
  }
}

function namesOf({ diskIds }: GuestStandstill): string {
  return diskIds.length === 0
    ? 'a disk'
    : diskIds.length === 1
      ? `disk ${diskIds[0]}`
      : `disks ${diskIds.join(', ')}`;
}
