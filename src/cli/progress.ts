import { SingleBar as Bar, type SingleBar } from 'cli-progress';
import type { Clock } from '../lib/clock.ts';
import { printable } from '../lib/printable.ts';
import { formatBytes, formatRate } from './format.ts';
import type { Screen } from './world.ts';

/** What some long work is at. */
export interface WorkState {
  /** In a few words: `sending point 7`. */
  readonly step: string;
  readonly bytesDone?: number;
  readonly bytesTotal?: number;
  readonly bytesPerSecond?: number;
  /** What else is worth a few words. */
  readonly remark?: string;
}

/** Shows how far work is, until it is ended. */
export interface ProgressDisplay {
  update(state: WorkState): void;
  /** A remark that stays. */
  note(text: string): void;
  end(): void;
}

/** Nobody looks: `--json`. */
export const noProgress: ProgressDisplay = {
  update: () => undefined,
  note: () => undefined,
  end: () => undefined,
};

export function progressOn(screen: Screen, clock: Clock): ProgressDisplay {
  return screen.isTTY ? new BarProgress(screen) : new LineProgress(screen, clock);
}

/** One line that is drawn again and again; gone at the end. */
class BarProgress implements ProgressDisplay {
  readonly #screen: Screen;
  #bar: SingleBar | undefined;

  constructor(screen: Screen) {
    this.#screen = screen;
  }

  update(state: WorkState): void {
    const total = state.bytesTotal ?? 0;
    const done = Math.min(state.bytesDone ?? 0, total);
    const payload = { line: lineOf(state) };
    if (!this.#bar) {
      this.#bar = new Bar({
        format: (options, params, values: { line: string }) => {
          const filled = Math.round(params.progress * (options.barsize ?? 30));
          const bar = params.total > 0 ? `[${'='.repeat(filled).padEnd(options.barsize ?? 30)}] ` : '';
          const percentage = params.total > 0 ? `${Math.floor(params.progress * 100)} %  ` : '';
          return `${bar}${percentage}${values.line}`;
        },
        barsize: 30,
        fps: 5,
        clearOnComplete: true,
        hideCursor: true,
        linewrap: true,
        emptyOnZero: true,
        gracefulExit: false,
        stream: this.#screen,
      });
      this.#bar.start(total, done, payload);
    }
    this.#bar.setTotal(total);
    this.#bar.update(done, payload);
  }

  note(text: string): void {
    this.end();
    this.#screen.write(`${printable(text)}\n`);
  }

  end(): void {
    this.#bar?.stop();
    this.#bar = undefined;
  }
}

/** The same step is told again after this long. */
const LINE_EVERY_MS = 10_000;

/** A line for every new step, and now and then how far it is: for logs and pipes. */
class LineProgress implements ProgressDisplay {
  readonly #screen: Screen;
  readonly #clock: Clock;
  #step: string | undefined;
  #toldAtMs = Number.NEGATIVE_INFINITY;

  constructor(screen: Screen, clock: Clock) {
    this.#screen = screen;
    this.#clock = clock;
  }

  update(state: WorkState): void {
    const nowMs = this.#clock.monotonicMs();
    if (state.step === this.#step && nowMs < this.#toldAtMs + LINE_EVERY_MS) return;
    this.#step = state.step;
    this.#toldAtMs = nowMs;
    this.note(lineOf(state));
  }

  note(text: string): void {
    this.#screen.write(`${printable(text)}\n`);
  }

  end(): void {
    this.#step = undefined;
  }
}

function lineOf({ step, bytesDone, bytesTotal, bytesPerSecond, remark }: WorkState): string {
  const amount =
    bytesTotal === undefined || bytesDone === undefined
      ? []
      : [`${formatBytes(bytesDone)} of ${formatBytes(bytesTotal)}`];
  const rate = bytesPerSecond === undefined ? [] : [formatRate(bytesPerSecond)];
  return printable([step, ...amount, ...rate, ...(remark === undefined ? [] : [remark])].join('  '));
}
