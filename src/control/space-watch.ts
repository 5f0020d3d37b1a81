import { type Clock, sleep } from '../lib/clock.ts';
import { isFailure } from '../lib/errors.ts';
import { spaceAt } from '../lib/host-files.ts';
import type { AlertSink } from './alerts.ts';
import { FREE_FRACTION_MIN } from './doctor.ts';
import { controlFailure } from './errors.ts';

const LOOK_EVERY_MS = 60_000;
const CRITICAL_FRACTION = 0.03;
const KEY = 'space';

/** Raises an alert while the file system of the data directory is nearly full. */
export class SpaceWatch {
  readonly #dataDirectory: string;
  readonly #clock: Clock;
  readonly #alerts: AlertSink;
  readonly #stop = new AbortController();
  readonly #work: Promise<void>;

  constructor(o: { dataDirectory: string; clock: Clock; alerts: AlertSink }) {
    this.#dataDirectory = o.dataDirectory;
    this.#clock = o.clock;
    this.#alerts = o.alerts;
    this.#work = this.#watch();
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await this.#work;
  }

  async #watch(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      await this.#look();
      try {
        await sleep(this.#clock, LOOK_EVERY_MS, signal);
      } catch {
        return; // Closed.
      }
    }
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
