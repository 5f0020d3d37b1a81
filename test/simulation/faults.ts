/** The kinds of calls that a disk can refuse. */
export const DISK_ACTS = [
  'open',
  'read',
  'write',
  'truncate',
  'sync',
  'syncDirectory',
  'rename',
  'remove',
  'makeDirectory',
  'list',
  'sizeOf',
] as const;
export type DiskAct = (typeof DISK_ACTS)[number];

interface Armed {
  readonly act: DiskAct;
  readonly system: 'EIO' | 'ENOSPC';
  readonly forever: boolean;
  left: number;
}

/** Which call of which kind fails, set by the world and asked by every call. */
export class DiskFaults {
  #armed: Armed[] = [];
  /** How many calls have failed. */
  struck = 0;

  /** The `after`-th call of that kind from now on fails, and with `forever` every later one too until `heal`. */
  arm(fault: { act: DiskAct; system: 'EIO' | 'ENOSPC'; after: number; forever: boolean }): void {
    const { act, system, forever, after } = fault;
    this.#armed.push({ act, system, forever, left: after });
  }

  heal(): void {
    this.#armed = [];
  }

  /** What this call fails with, if it does. */
  strike(act: DiskAct): 'EIO' | 'ENOSPC' | undefined {
    let result: 'EIO' | 'ENOSPC' | undefined;
    for (const fault of this.#armed) {
      if (fault.act !== act) continue;
      fault.left -= 1;
      if (fault.left === 0 || (fault.left < 0 && fault.forever)) result = fault.system;
    }
    this.#armed = this.#armed.filter(({ left, forever }) => left > 0 || forever);
    if (result) this.struck += 1;
    return result;
  }
}
