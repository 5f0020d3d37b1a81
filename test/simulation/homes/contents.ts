import type { FakeMachine } from '../../support/fake-machine.ts';
import { Violation } from '../violation.ts';

const SECTOR_BYTES = 512;

/** What the guest of one branch has written: begun upon what was there, and then so many writes, each of one sector. */
interface Line {
  readonly base: Buffer;
  readonly writes: { readonly value: number; readonly sector: number }[];
}

/** A state of a disk, by who has written it last. */
export interface State {
  /** Empty: nobody has written anything. */
  readonly line: string;
  readonly lastValue: number;
}

/**
 * What guests have written, by the branch that they ran upon: no value is written twice, and all of a write is flushed before the next. What is
 * read anywhere, at any time, is what one of these lines was at one moment, or somebody has mixed what is not his.
 */
export class Contents {
  readonly #lines = new Map<string, Line>();
  readonly #sizeBytes: number;
  readonly #deviceName: string;
  #values = 0;

  constructor(o: { readonly sizeBytes: number; readonly deviceName: string }) {
    this.#sizeBytes = o.sizeBytes;
    this.#deviceName = o.deviceName;
  }

  get lines(): readonly string[] {
    return [...this.#lines.keys()];
  }

  /** Where a line stands now. */
  stateOf(line: string): State {
    const { base, writes } = this.#lines.get(line)!;
    return writes.length > 0 ? { line, lastValue: writes.at(-1)!.value } : this.identify(base, line);
  }

  /** Whether a guest has written in it. */
  hasWritten(line: string): boolean {
    return (this.#lines.get(line)?.writes.length ?? 0) > 0;
  }

  async read(guest: FakeMachine): Promise<Buffer> {
    return guest.guestRead(this.#deviceName, 0, this.#sizeBytes);
  }

  /** A guest begins: it finds what its line was last, and a new line begins with what it finds. */
  begins(line: string, found: Buffer): State {
    const state = this.identify(found, line);
    const known = this.#lines.get(line);
    if (!known) this.#lines.set(line, { base: found, writes: [] });
    else if (!found.equals(contentOf(known)))
      throw new Violation(
        `a guest of ${line} finds ${said(state)}, and left ${said(this.stateOf(line))} behind`,
      );
    return state;
  }

  async write(line: string, guest: FakeMachine, pick: (sectors: number) => number): Promise<void> {
    const value = ++this.#values;
    const sector = pick(this.#sizeBytes / SECTOR_BYTES);
    this.#lines.get(line)!.writes.push({ value, sector });
    await guest.guestWrite(this.#deviceName, sector * SECTOR_BYTES, sectorOf(value));
    await guest.guestFlush();
  }

  /** Whose a state is. Throws if it was never one. */
  identify(found: Buffer, where: string): State {
    let lastValue = 0;
    for (let at = 0; at < found.length; at += SECTOR_BYTES)
      lastValue = Math.max(lastValue, found.readUInt32LE(at));
    if (lastValue === 0) {
      if (found.some((byte) => byte !== 0)) throw new Violation(`${where} is torn`);
      return { line: '', lastValue: 0 };
    }
    for (const [line, { base, writes }] of this.#lines) {
      const at = writes.findIndex(({ value }) => value === lastValue);
      if (at < 0) continue;
      const expected = contentOf({ base, writes: writes.slice(0, at + 1) });
      if (expected.equals(found)) return { line, lastValue };
      throw new Violation(`${where} is not what ${line} was when ${lastValue} was written`);
    }
    throw new Violation(`${where} has ${lastValue}, which nobody has written`);
  }
}

function contentOf({ base, writes }: Line): Buffer {
  const content = Buffer.from(base);
  for (const { value, sector } of writes) sectorOf(value).copy(content, sector * SECTOR_BYTES);
  return content;
}

function sectorOf(value: number): Buffer {
  const data = Buffer.alloc(SECTOR_BYTES);
  new Uint32Array(data.buffer, data.byteOffset, SECTOR_BYTES / 4).fill(value);
  return data;
}

export function said({ line, lastValue }: State): string {
  return line === '' ? 'nothing' : `${line.slice(-4)} up to ${lastValue}`;
}
