import { join } from 'node:path';
import { assert } from '../lib/assert.ts';
import { type Generation, generationName } from '../lib/generations.ts';
import { isId } from '../lib/random.ts';

/** Where the protected side keeps what belongs to one machine. Only ids become path parts, never names. */
export class ProtectedLayout {
  readonly directory: string;

  constructor(dataDirectory: string, machineId: string, generation?: Generation) {
    assert(isId(machineId), 'a machine id names a directory');
    this.directory = join(dataDirectory, 'protected', generationName(machineId, generation));
  }

  get record(): string {
    return join(this.directory, 'machine.json');
  }

  /** Hooks that must still run. */
  get owedHooks(): string {
    return join(this.directory, 'hooks.json');
  }

  get cuts(): string {
    return join(this.directory, 'cuts');
  }

  cut(cutId: string): string {
    return join(this.cuts, `${cutId}.json`);
  }

  get targets(): string {
    return join(this.directory, 'targets');
  }

  target(siteId: string): string {
    assert(isId(siteId), 'a site id names a file');
    return join(this.targets, `${siteId}.json`);
  }

  get disks(): string {
    return join(this.directory, 'disks');
  }

  /** Where layers go that were given up for what the owner's files hold: kept for a person. */
  setAside(lastCutId: string): string {
    return join(this.directory, `set-aside-${lastCutId}`);
  }

  disk(diskId: string): string {
    return join(this.disks, diskId);
  }

  /** The layer that takes guest writes after a cut, until the next one seals it. */
  layer(diskId: string, cutId: string): string {
    return join(this.disk(diskId), `${cutId}.qcow2`);
  }

  /** What a tip is called as soon as the guest may have written to the owner's file below it. */
  givenBack(tipPath: string): string {
    return `${tipPath}.given-back`;
  }

  get leaves(): string {
    return join(this.directory, 'leaves');
  }

  /** Digests of what one target has acknowledged. A disk id is shorter than the id of a site. */
  leavesOf(siteId: string): string {
    assert(isId(siteId), 'a site id names a directory');
    return join(this.leaves, siteId);
  }
}
