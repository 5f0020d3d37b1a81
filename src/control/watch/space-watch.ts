import type { Clock } from '../../lib/clock.ts';
import { isFailure } from '../../lib/errors.ts';
import { spaceAt } from '../../lib/host-files.ts';
import type { AlertSink } from '../base/alerts.ts';
import { Rounds } from '../base/rounds.ts';
import { controlFailure } from '../errors.ts';
import { FREE_FRACTION_MIN } from './doctor.ts';

const LOOK_EVERY_MS = 60_000;
const CRITICAL_FRACTION = 0.03;
const KEY = 'space';

/** Raises an alert while the file system of the data directory is nearly full. */
export class SpaceWatch {
  readonly #dataDirectory: string;
  readonly #alerts: AlertSink;
  readonly #rounds: Rounds;

  constructor(o: { dataDirectory: string; clock: Clock; alerts: AlertSink }) {
    this.#dataDirectory = o.dataDirectory;
    this.#alerts = o.alerts;
    this.#rounds = new Rounds({ clock: o.clock, everyMs: LOOK_EVERY_MS, round: () => this.#look() });
  }

  close(): Promise<void> {
    return this.#rounds.close();
  }

  async #look(): Promise<void> {
    try {
      const { freeBytes, totalBytes } = await spaceAt(this.#dataDirectory);
      if (freeBytes >= totalBytes * FREE_FRACTION_MIN) return this.#alerts.clear(KEY);
      const said = `${(freeBytes / 2 ** 30).toFixed(1)} GiB are left below ${this.#dataDirectory}`;
      const severity = freeBytes < totalBytes * CRITICAL_FRACTION ? 'critical' : 'warning';
      this.#alerts.raise(KEY, severity, controlFailure('SITE_DISK_NEARLY_FULL', said));
    } catch (error) {
      if (!isFailure(error)) throw error;
      this.#alerts.raise(KEY, 'critical', error);
    }
  }
}
