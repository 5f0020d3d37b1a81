import type { DiskCut, RunningMachine } from '../hypervisor/index.ts';
import type { CutRecord } from './records.ts';

/** A machine that is ready to be cut: its layers are made, its guest is frozen if the copy type asks for it. */
export interface ReadyCut {
  readonly running: RunningMachine;
  readonly pointId: string;
  readonly disks: readonly DiskCut[];
}

/** How the instant of a cut came about. */
export interface SealedCut extends Pick<CutRecord, 'cutAtMs' | 'pauseMs' | 'group'> {
  /** It was to be part of a common cut, and is none; why. */
  readonly apart?: string;
}

/** The part of a cut that several machines share: its instant. */
export interface CutTogether {
  /** Seals the disks, when all the others are ready as well. Throws as `RunningMachine.cut`. */
  seal(ready: ReadyCut): Promise<SealedCut>;
  /** The machine does not run, and is copied as it lies there. Returns why it is so alone. */
  stopped(): string;
}
