import type { DiskCut, RunningMachine } from '../hypervisor/index.ts';
import type { CutRecord } from './records.ts';

/** A machine that is ready to be cut: its layers are made. */
export interface ReadyCut {
  readonly running: RunningMachine;
  readonly pointId: string;
  readonly disks: readonly DiskCut[];
  /** What else is to be done while all stand still, when the disks are sealed. */
  readonly held?: () => Promise<void>;
}

/** How the instant of a cut came about. */
export interface SealedCut extends Pick<CutRecord, 'cutAtMs' | 'pauseMs' | 'group' | 'tpm'> {
  /** It was to be part of a common cut, and is none; why. */
  readonly apart?: string;
  /** It has a TPM, and what that held at the instant is not known; why. */
  readonly withoutTpm?: string;
}

/** The part of a cut that several machines share: its instant. */
export interface CutTogether {
  /** Prepares the cut and waits until the others are as far: no guest is held for a machine that is busy. */
  ready(ready: ReadyCut): Promise<void>;
  /** Once, after `ready`: seals the disks when the guests of the others are held as well. Throws as `RunningMachine.cut`. */
  seal(): Promise<SealedCut>;
  /** The machine does not run, and is copied as it lies there. Returns why it is so alone. */
  stopped(): string;
}
