import type { Failure } from '../lib/errors.ts';
import type { MachineConfiguration, Medium } from './configuration.ts';
import type { ImageFile } from './images.ts';
import type { HostOffer } from './startability.ts';

/** Where a machine that runs can be talked to. */
export interface MachineSockets {
  /** Unix socket of the machine protocol (QMP). QEMU serves one client at a time on it. */
  readonly qmpPath: string;
  /** Unix socket behind the guest agent's port; absent when the guest has none. */
  readonly agentPath?: string;
}

/** What a new machine process is given besides its configuration. */
export interface StartRequest {
  readonly configuration: MachineConfiguration;
  /** Chains by disk id, the oldest file first; the last one is written. */
  readonly disks: Readonly<Record<string, readonly ImageFile[]>>;
  /** Where its TPM, if it has one, has its state: a directory of one machine alone. */
  readonly tpmDirectory?: string | undefined;
  /** Directory for sockets, logs and the process id; made by the caller, short enough for unix sockets. */
  readonly runDirectory: string;
  /** How each NIC is connected, by NIC id; a NIC that is not named has its cable unplugged. */
  readonly networks?: Readonly<Record<string, NetworkAttachment>>;
  /** Network namespace that the process runs in (a name known to `ip netns`). */
  readonly networkNamespace?: string;
  /** Do not run the guest's CPUs yet. */
  readonly paused?: boolean;
  /** Further arguments of this hypervisor's own, for laboratories. */
  readonly extraArguments?: readonly string[];
}

/** A tap interface that exists already, in the namespace that the process runs in. */
export interface NetworkAttachment {
  readonly kind: 'tap';
  readonly interfaceName: string;
}

/** One writable disk of a running machine, as its block graph shows it. */
export interface MachineDisk {
  /** The name that the hypervisor gives the device; stable while the process lives. */
  readonly deviceName: string;
  /** The node that guest writes arrive at. */
  readonly tipNode: string;
  /** Files below the device, the oldest first; the last one is the tip. */
  readonly chain: readonly ImageFile[];
  readonly sizeBytes: number;
  /** Why this disk cannot be cut, if it cannot. */
  readonly unsupported?: string;
}

export interface DiskCut {
  readonly deviceName: string;
  /** An empty layer that names the present tip as its backing file; it becomes the new tip. */
  readonly overlay: ImageFile;
}

export interface CutReport {
  /** How long the transaction took, as seen from here. */
  readonly pauseMs: number;
}

/** A cut of which everything has been done but the instant itself; left alone, it is swept by the next one. */
export interface PreparedCut {
  /** Seals the disks, as `RunningMachine.cut`; called once. */
  seal(): Promise<CutReport>;
}

/** What became of a common pause of several machines. */
export interface PauseReport {
  /** All of them stood still from before `work` began until after it had ended. */
  readonly together: boolean;
  /** Why not, if not. */
  readonly reason?: string;
  /** From the first stop sent until the last machine had confirmed that it runs. */
  readonly pausedMs: number;
  /** The same for each machine, in their order; 0 for one that stood still before. */
  readonly eachMs: readonly number[];
}

/** A disk whose guest is to write to another file from now on: the one that everything above has been committed into. */
export interface Pivot {
  readonly deviceName: string;
  /** The file that the guest is to write to. */
  readonly base: ImageFile;
  /** The file that it writes to until then. */
  readonly tip: ImageFile;
  /** What the tip is called as soon as the guest may have written to the base; in the same directory. */
  readonly givenBackPath: string;
}

export interface PivotOptions {
  /** The guest runs, or did before it was stopped for this: it is to run afterwards. */
  readonly continues: boolean;
}

export interface PivotReport {
  /** How long the guest stood still; 0 for one that did so before. */
  readonly pausedMs: number;
  /** COMMIT_FAILED or the like: not every disk has its base. Those that have it have lost the name of their tip. */
  readonly failure?: Failure;
}

export interface QuiesceReport<T> {
  readonly result: T;
  /** The guest was frozen from before `work` began until after it had ended. */
  readonly consistent: boolean;
  /** Why not, if not. */
  readonly reason?: string;
  readonly frozenMs?: number;
}

/** What the disks of a machine may do together, reads and writes. */
export interface DiskLimit {
  readonly bytesPerSecond?: number | undefined;
  readonly operationsPerSecond?: number | undefined;
}

/** A program of the guest, run without a shell. */
export interface GuestCommand {
  readonly command: string;
  readonly arguments: readonly string[];
  /** What it reads from its standard input. */
  readonly input?: string | undefined;
  readonly limitMs: number;
}

/** How a program of the guest ended. Reasons and output are a stranger's words. */
export type GuestCommandReport =
  | {
      readonly outcome: 'ended';
      /** 128 + number of the signal if one ended it. */
      readonly exitCode: number;
      /** The beginning of what it printed, errors last. */
      readonly output: string;
    }
  /** `not-begun`: it certainly does not run. `lost`: it began or may have begun; it was out of time, or the agent died. */
  | { readonly outcome: 'not-begun' | 'lost'; readonly reason: string };

export interface MachineIdentity {
  readonly uuid: string;
  readonly name?: string;
}

export type MachineState = 'running' | 'paused' | 'shut-down' | 'crashed' | 'io-error';

/** Why a guest stands still whose process runs. */
export type Standstill =
  /** `paused`: by somebody's word, or it has not begun yet. */
  | { readonly why: 'paused' | 'shut-down' | 'crashed' }
  /**
   * It was stopped because a disk could not be written or read: `no-space`, for lack of space alone. The guest was told
   * nothing; what failed is done again when it is continued.
   */
  | {
      readonly why: 'no-space' | 'io-error';
      /** The devices that it happened to, as far as is known. */
      readonly deviceNames: readonly string[];
    };

/**
 * A machine whose process runs.
 *
 * What an implementation must provide:
 * - `cut` is atomic over all the disks given: either every one has its new tip and every old tip is sealed at
 *   one instant, or none has changed (CUT_FAILED; DISK_UNSUPPORTED names a disk that can never be cut);
 * - a sealed layer never changes afterwards and its file is complete for other readers;
 * - `commit` is restartable: killed at any instant, the chain still has its content, whether the layer is
 *   gone from it or not, and doing it again ends it;
 * - the guest is paused by `cut` and `pivot` alone, and for no longer than they take.
 */
export interface RunningMachine extends AsyncDisposable {
  readonly sockets: MachineSockets;
  /** The process, where it is known (a machine attached to may not tell). */
  readonly processId: number | undefined;
  /** Settles when the connection has ended: the process has gone or the socket has. */
  readonly gone: Promise<void>;
  state(): Promise<MachineState>;
  /** Whether its guest has begun to run: one of a paused start has not before it is resumed. */
  hasBegun(): Promise<boolean>;
  /** Why the guest stands still; undefined: it runs. Changes are told by the events STOP and RESUME. */
  standstill(): Promise<Standstill | undefined>;
  /** Who the process says that it is: its UUID, in small letters, and what its owner calls it. */
  identity(): Promise<MachineIdentity>;
  disks(): Promise<readonly MachineDisk[]>;
  cut(disks: readonly DiskCut[]): Promise<CutReport>;
  /** Does of a cut what takes time and is not noticed by the guest. Throws as `cut`; nothing has changed then. */
  prepareCut(disks: readonly DiskCut[]): Promise<PreparedCut>;
  /** Makes a disk larger, as its guest sees it; durable on return. One that is as large already stays as it is. */
  growDisk(deviceName: string, sizeBytes: number): Promise<void>;
  /**
   * Has the event BLOCK_WRITE_THRESHOLD told once for each of these devices, when the file of its tip is written to beyond the
   * offset given. A later call takes the place of an earlier one for the same tip; a new tip is not watched. Devices that the
   * machine does not have are passed over.
   */
  watchTips(offsets: Readonly<Record<string, number>>): Promise<void>;
  /** Limits all disks together, from now on until the process ends; what is not named is not limited. */
  limitDisks(limit: DiskLimit): Promise<void>;
  /**
   * Commits a sealed layer of the disk into the file below it and takes it out of the chain. On return the
   * data and the new backing name of the layer above are durable; removing the file is the caller's.
   */
  commit(deviceName: string, layer: ImageFile): Promise<void>;
  /**
   * Commits everything above `base` into it, the tip included, while the guest runs. On return the two are level and are kept
   * so: what the guest writes goes to the tip, and from there into `base`, until `pivot` or `settlePivots`. Nothing but `pivot`
   * ever has the guest write to `base`.
   */
  commitTip(deviceName: string, base: ImageFile): Promise<void>;
  /**
   * Has the guest write to the bases of disks that are level. The guest does not run on any of them before it is durable that
   * it does: until then it stands still, and then the tip has the name `givenBackPath`. That holds if this process is
   * killed, too: a process of its own settles the pivots then. If both are, the guest stands still until `settlePivots`.
   * Throws what hindered the settling; the guest may stand still then.
   */
  pivot(pivots: readonly Pivot[], o: PivotOptions): Promise<PivotReport>;
  /**
   * Ends pivots that were begun: commits of these disks are given up, what lies on its base is durably said to do so, and the guest
   * runs on, if it is to.
   */
  settlePivots(pivots: readonly Pivot[], o: PivotOptions): Promise<void>;
  /** Closes files that have left the chains of the disks, as far as the machine has them open. */
  letGoOf(layers: readonly ImageFile[]): Promise<void>;
  /** The machine in platform-neutral words, as far as the process tells; disks named by `diskIds`. */
  configuration(diskIds: Readonly<Record<string, string>>): Promise<MachineConfiguration>;
  /**
   * Runs `work` while the guest agent holds the guest's file systems frozen, its applications flushed by its own
   * hooks. `work` runs in any case, so that a copy is never lost to a guest that does not answer; what was reached
   * stands in the report. The guest is thawed after `limitMs` at the latest, also if this process is killed. An agent
   * that ends meanwhile costs the consistency.
   */
  whileFrozen<T>(limitMs: number, work: () => Promise<T>): Promise<QuiesceReport<T>>;
  /**
   * Thaws a guest that a process of ours left frozen which was killed together with its freeze guard. Waits for each word
   * of the guest agent for `answerMs` at most: `silent` says that nothing was learned. Never beside `whileFrozen`: the one
   * waits for the other. Throws QMP_FREEZE_THAW_UNCONFIRMED for a guest that is frozen and does not confirm its thaw.
   */
  thawAbandoned(answerMs: number): Promise<'thawed' | 'not-frozen' | 'silent'>;
  /**
   * Runs a program in the guest through its agent and waits for its end; never throws for what guest or agent do. One that is
   * out of time is ended, where the guest has `/bin/sh`. Waits while the guest is frozen by `whileFrozen`.
   */
  runInGuest(command: GuestCommand): Promise<GuestCommandReport>;
  /**
   * Tells the networks that its NICs are plugged into where they are now: frames with their addresses that nobody asked for (RARP), and, from a
   * guest whose driver can, ARP for its own addresses. Some rounds, which go on for a second after the return.
   */
  announce(): Promise<void>;
  /** Writes a picture of the console (PPM) to a file. */
  consolePicture(path: string): Promise<void>;
  /**
   * Stops the guest's CPUs. On return nothing that the guest wrote is under way any more; what it was told to be durable is.
   * A machine that stands still already stays as it is.
   */
  pause(): Promise<void>;
  /** Runs the guest's CPUs, after a paused start, a pause, or a stop for an I/O error. */
  resume(): Promise<void>;
  /** Presses the power button; the guest decides. */
  pressPowerButton(): Promise<void>;
  /** Ends the process at once, as pulling the plug would, but with its files closed cleanly. */
  quit(): Promise<void>;
  /** Told of every event of the machine; returns the function that ends it. */
  onEvent(listener: (event: MachineEvent) => void): () => void;
  /** Lets go of the connection; the machine runs on. */
  disconnect(): Promise<void>;
}

export interface MachineEvent {
  readonly name: string;
  readonly data: Readonly<Record<string, unknown>>;
}

/** Starts machines and attaches to ones that somebody else started. */
export interface Hypervisor {
  /** What accelerates guests here, checked by running one: `kvm`, or `tcg` with the reason why not. */
  acceleration(): Promise<{ readonly accelerator: 'kvm' | 'tcg'; readonly reason?: string }>;
  /** What this host has for machines, as it is now, and which of these media of CD drives. */
  offer(media?: readonly Medium[]): Promise<HostOffer>;
  /** Starts a process that lives on when ours ends. MACHINE_START_FAILED carries what it said. */
  start(request: StartRequest): Promise<RunningMachine>;
  /** Connects to a machine by its sockets. Throws QMP_NO_GREETING, MACHINE_NOT_RUNNING. */
  attach(sockets: MachineSockets): Promise<RunningMachine>;
  /** The process ids of the machine that was started with a run directory, whoever started it; none if there is no such machine. */
  processesOf(runDirectory: string): Promise<readonly number[]>;
  /**
   * Ends the machine that was started with a run directory, and what was started for it, whoever did: in order if it heeds that, else
   * by force. Nothing of it is left on return; that there was nothing is fine. Throws MACHINE_END_FAILED.
   */
  end(runDirectory: string): Promise<void>;
  /**
   * Runs `work` while all of the machines stand still: every one is stopped before `work` begins, and continued when it has
   * ended, failed, or `limitMs` have passed since the first stop, also if this process is killed or stopped meanwhile. If
   * one cannot be stopped, the others are continued and `work` is not run. A machine that stood still before is left so.
   * Does not wait for `work` beyond the limit; what it throws before is thrown when the machines run again.
   */
  whilePaused(
    machines: readonly RunningMachine[],
    limitMs: number,
    work: () => Promise<void>,
  ): Promise<PauseReport>;
}
