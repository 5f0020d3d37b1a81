import { systemClock } from '../src/lib/clock.ts';

const startMs = systemClock.monotonicMs();

function stamp(): string {
  return `${((systemClock.monotonicMs() - startMs) / 1000).toFixed(1).padStart(6)} s`;
}

/** The narration of the demonstration: one line for each thing that happens, with the time since its start. */
export const say = {
  chapter(title: string): void {
    console.log(`\n${stamp()}  ${title}`);
  },
  line(text: string): void {
    console.log(`${stamp()}    ${text}`);
  },
  /** A command line as somebody at that site would type it. */
  command(site: string, args: readonly string[]): void {
    const words = args.map((arg) =>
      /^[\w@%+=:,./-]+$/.test(arg) ? arg : `'${arg.length > 60 ? `${arg.slice(0, 57)}…` : arg}'`,
    );
    console.log(`${stamp()}    ${site}$ warmsite ${words.join(' ')}`);
  },
  elapsedSeconds(): number {
    return (systemClock.monotonicMs() - startMs) / 1000;
  },
};
