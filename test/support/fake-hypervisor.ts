import type {
  CutReport,
  DiskCut,
  GuestCommandReport,
  Hypervisor,
  ImageFile,
  MachineConfiguration,
  MachineDisk,
  MachineEvent,
  MachineIdentity,
  MachineSockets,
  MachineState,
  PauseReport,
  Pivot,
  PivotOptions,
  PivotReport,
  PreparedCut,
  QuiesceReport,
  RunningMachine,
  Standstill,
  StartRequest,
} from '../../src/hypervisor/index.ts';
import { HYPERVISOR_ERRORS } from '../../src/hypervisor/index.ts';
import { type PivotWatch, pivot, settlePivots } from '../../src/hypervisor/pivot.ts';
import { whilePaused } from '../../src/hypervisor/while-paused.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { Failure, type FailureDetails, messageOf } from '../../src/lib/errors.ts';
import type { FileSystem } from '../../src/lib/files.ts';
import { QMP_ERRORS } from '../../src/qmp/index.ts';
import { type Actor, AT_ONCE } from './actor.ts';
import type { FakeDisk, FakeMachine } from './fake-machine.ts';

/** What a machine that is no process is called by. */
const FAKE_PROCESS_ID = 1;

/** What goes wrong with one command: refused without effect, or done and its answer lost with the connection. */
export type Mishap = 'refused' | 'answer-lost';
export type MachineCommand = 'attach' | 'start' | 'cut' | 'commit' | 'disks' | 'freeze' | 'pause' | 'grow';

/** The machines of one host, by the path of their sockets. They outlive the processes that talk to them. */
export interface FakeHost {
  readonly machines: Map<string, FakeMachine>;
  /** Where nobody looks after them, the guards do nothing when their parents die. */
  readonly guards?: FakeGuards;
  readonly start: (
    sockets: MachineSockets,
    disks: readonly FakeDisk[],
    o: { readonly paused: boolean },
  ) => Promise<FakeMachine>;
}

type Settle = (guard: Actor, files: FileSystem) => Promise<void>;

/** The processes that settle pivots in the place of a parent that has died. */
export class FakeGuards {
  readonly #watching = new Map<Actor, Settle>();

  watch(parent: Actor, settle: Settle): void {
    this.#watching.set(parent, settle);
  }

  release(parent: Actor): void {
    this.#watching.delete(parent);
  }

  /** The parent has died: its guard, if it has one, does what it is there for, as far as the world lets it. */
  async parentDied(parent: Actor, guard: Actor, files: FileSystem): Promise<void> {
    const settle = this.#watching.get(parent);
    this.#watching.delete(parent);
    try {
      await settle?.(guard, files);
    } catch (error) {
      // The machine has gone, too.
      if (!(error instanceof Failure)) throw error;
    }
  }
}

/** `Hypervisor` for one process of a site. Device names are `drive-<disk id>`, unless told otherwise. */
export class FakeHypervisor implements Hypervisor {
  readonly #host: FakeHost;
  readonly #actor: Actor;
  readonly #mishap: (command: MachineCommand) => Mishap | undefined;
  readonly #files: FileSystem | undefined;
  readonly #deviceName: (diskId: string) => string;

  /** `files` is what this process has of the disks that its machines lie on; by default it is as quick as theirs. */
  constructor(o: {
    host: FakeHost;
    actor: Actor;
    mishap?: (command: MachineCommand) => Mishap | undefined;
    files?: FileSystem;
    deviceName?: (diskId: string) => string;
  }) {
    this.#host = o.host;
    this.#actor = o.actor;
    this.#mishap = o.mishap ?? (() => undefined);
    this.#files = o.files;
    this.#deviceName = o.deviceName ?? ((diskId) => `drive-${diskId}`);
  }

  #connected(machine: FakeMachine, sockets: MachineSockets): FakeConnection {
    const { guards } = this.#host;
    return new FakeConnection({
      ...{ machine, sockets, guards, actor: this.#actor, mishap: this.#mishap },
      files: this.#files ?? machine.files,
    });
  }

  async acceleration(): ReturnType<Hypervisor['acceleration']> {
    return { accelerator: 'tcg', reason: 'nothing runs' };
  }

  async offer(): ReturnType<Hypervisor['offer']> {
    return {
      accelerator: 'tcg',
      machineTypes: new Map(),
      cpuModels: new Map(),
      firmware: [],
      hasTpm: false,
      media: new Set(),
      memoryBytes: 0,
    };
  }

  async start(request: StartRequest): Promise<RunningMachine> {
    const sockets = { qmpPath: `${request.runDirectory}/qmp` };
    await this.#actor.turn('start machine', () => undefined);
    if (this.#host.machines.get(sockets.qmpPath)?.isAlive) throw startFailed('it runs already');
    const disks = request.configuration.disks.map(({ diskId, sizeBytes }) => ({
      deviceName: this.#deviceName(diskId),
      sizeBytes,
      chain: request.disks[diskId]!,
    }));
    let machine: FakeMachine;
    try {
      machine = await this.#host.start(sockets, disks, { paused: request.paused === true });
    } catch (error) {
      throw startFailed(messageOf(error));
    }
    if (this.#mishap('start')) throw startFailed('the answer was lost');
    return this.#connected(machine, sockets);
  }

  async attach(sockets: MachineSockets): Promise<RunningMachine> {
    const machine = await this.#actor.turn('attach', () => this.#host.machines.get(sockets.qmpPath));
    if (this.#mishap('attach'))
      throw new Failure('QMP_NO_GREETING', QMP_ERRORS.QMP_NO_GREETING, 'nobody greets');
    if (!machine?.isAlive) throw failure('MACHINE_NOT_RUNNING', 'there is no such machine');
    return this.#connected(machine, sockets);
  }

  processesOf(runDirectory: string): Promise<readonly number[]> {
    return this.#actor.turn('processes', () => (this.#aliveIn(runDirectory) ? [FAKE_PROCESS_ID] : []));
  }

  async end(runDirectory: string): Promise<void> {
    await this.#actor.turn('end machine', () => this.#aliveIn(runDirectory)?.kill());
  }

  #aliveIn(runDirectory: string): FakeMachine | undefined {
    const machine = this.#host.machines.get(`${runDirectory}/qmp`);
    return machine?.isAlive ? machine : undefined;
  }

  whilePaused(
    machines: readonly RunningMachine[],
    limitMs: number,
    work: () => Promise<void>,
  ): Promise<PauseReport> {
    const guard = async () => ({
      ...{ isAlive: true, arm: () => undefined, continueAll: () => undefined },
      release: async () => undefined,
    });
    return whilePaused({ machines, limitMs, clock: systemClock, guard, work });
  }
}

class FakeConnection implements RunningMachine {
  readonly sockets: MachineSockets;
  readonly processId = undefined;
  readonly gone: Promise<void>;
  readonly #machine: FakeMachine;
  readonly #actor: Actor;
  readonly #mishap: (command: MachineCommand) => Mishap | undefined;
  readonly #files: FileSystem;
  readonly #guards: FakeGuards | undefined;
  #end: () => void;
  /** Nothing that is said reaches the machine any more. */
  #hasEnded = false;

  constructor(o: {
    machine: FakeMachine;
    sockets: MachineSockets;
    actor: Actor;
    mishap: (command: MachineCommand) => Mishap | undefined;
    files: FileSystem;
    guards: FakeGuards | undefined;
  }) {
    const { machine, actor } = o;
    this.#machine = machine;
    this.sockets = o.sockets;
    this.#actor = actor;
    this.#mishap = o.mishap;
    this.#files = o.files;
    this.#guards = o.guards;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#end = () => {
      this.#hasEnded = true;
      resolve();
    };
    const forget = machine.onGone(this.#end);
    if (!machine.isAlive) this.#end();
    this.gone = promise.then(() => {
      forget();
      return actor.turn('machine gone', () => undefined);
    });
  }

  /** Sends a command, has it done by the machine, hears the answer. */
  async #command<T>(name: MachineCommand, work: () => Promise<T>, onRefusal: () => Failure): Promise<T> {
    await this.#actor.turn(`${name} sent`, () => undefined);
    const mishap = this.#mishap(name);
    if (mishap === 'refused') throw onRefusal();
    const gone = this.gone.then((): never => {
      throw new Failure('QMP_DISCONNECTED', QMP_ERRORS.QMP_DISCONNECTED, `${name}: the machine has gone`);
    });
    const result = this.#hasEnded ? gone : work();
    const answered = Promise.race([result, gone]);
    // Each of the three may fail while another one is waited for.
    for (const promise of [gone, result, answered]) promise.catch(() => undefined);
    if (mishap === 'answer-lost') {
      await answered;
      this.#end();
      return gone;
    }
    return answered.then((value) => this.#actor.turn(`${name} answered`, () => value));
  }

  async identity(): Promise<MachineIdentity> {
    return { uuid: '00000000-0000-0000-0000-000000000000' };
  }

  async state(): Promise<MachineState> {
    return this.#actor.turn('state', () => {
      const { why = 'running' } = this.#machine.standstill ?? {};
      return why === 'no-space' ? 'io-error' : why;
    });
  }

  async hasBegun(): Promise<boolean> {
    return this.#machine.hasBegun;
  }

  async standstill(): Promise<Standstill | undefined> {
    return this.#machine.standstill;
  }

  disks(): Promise<readonly MachineDisk[]> {
    return this.#command(
      'disks',
      async () => this.#machine.disks,
      () => failure('DISK_UNSUPPORTED', 'no answer to be understood'),
    );
  }

  cut(cuts: readonly DiskCut[]): Promise<CutReport> {
    return this.#command(
      'cut',
      async () => {
        try {
          await this.#machine.growOverlays(cuts);
          await this.#machine.cut(cuts);
        } catch (error) {
          throw failure('CUT_FAILED', messageOf(error), { cause: error });
        }
        return { pauseMs: 1 };
      },
      () => failure('CUT_FAILED', 'the machine refused'),
    );
  }

  async prepareCut(cuts: readonly DiskCut[]): Promise<PreparedCut> {
    await this.disks();
    return { seal: () => this.cut(cuts) };
  }

  growDisk(deviceName: string, sizeBytes: number): Promise<void> {
    return this.#command(
      'grow',
      () => this.#machine.grow(deviceName, sizeBytes),
      () => failure('DISK_UNSUPPORTED', 'the machine refused'),
    );
  }

  async watchTips(): Promise<void> {
    await this.#actor.turn('tips watched', () => undefined);
  }

  async limitDisks(): Promise<void> {
    await this.#actor.turn('limit sent', () => undefined);
  }

  commit(deviceName: string, layer: ImageFile): Promise<void> {
    return this.#commit(() => this.#machine.commit(deviceName, layer));
  }

  commitTip(deviceName: string, base: ImageFile): Promise<void> {
    return this.#commit(() => this.#machine.commitTip(deviceName, base));
  }

  completeCommit(deviceName: string): Promise<void> {
    return this.#commit(() => this.#machine.completeCommit(deviceName));
  }

  abandonCommit(deviceName: string): Promise<void> {
    return this.#commit(() => this.#machine.abandonCommit(deviceName));
  }

  pivot(pivots: readonly Pivot[], options: PivotOptions): Promise<PivotReport> {
    const guards = this.#guards;
    const guard = async (): Promise<PivotWatch> => {
      guards?.watch(this.#actor, (actor, files) => this.#as(actor, files).settlePivots(pivots, options));
      return {
        release: async () => guards?.release(this.#actor),
        // Its connection is lost: the guard has the monitor to itself.
        takeOver: () => void guards?.parentDied(this.#actor, AT_ONCE, this.#machine.files),
      };
    };
    return pivot({ machine: this, pivots, files: this.#files, clock: systemClock, guard, options });
  }

  /** The same machine, as another process talks to it. */
  #as(actor: Actor, files: FileSystem): FakeConnection {
    return new FakeConnection({
      ...{ machine: this.#machine, actor, files, sockets: this.sockets, guards: undefined },
      mishap: () => undefined,
    });
  }

  settlePivots(pivots: readonly Pivot[], options: PivotOptions): Promise<void> {
    return settlePivots({ machine: this, pivots, files: this.#files, options });
  }

  async letGoOf(): Promise<void> {
    await this.#actor.turn('let go of layers', () => undefined);
  }

  #commit(work: () => Promise<void>): Promise<void> {
    return this.#command(
      'commit',
      async () => {
        try {
          await work();
        } catch (error) {
          throw failure('COMMIT_FAILED', messageOf(error), { cause: error });
        }
      },
      () => failure('COMMIT_FAILED', 'the machine refused'),
    );
  }

  async configuration(): Promise<MachineConfiguration> {
    throw failure('DISK_UNSUPPORTED', 'a fake machine does not tell its configuration');
  }

  async whileFrozen<T>(_limitMs: number, work: () => Promise<T>): Promise<QuiesceReport<T>> {
    const isFrozen = this.#mishap('freeze') === undefined;
    const result = await work();
    return isFrozen
      ? { result, consistent: true, frozenMs: 1 }
      : { result, consistent: false, reason: 'the guest agent does not answer' };
  }

  async thawAbandoned(): Promise<'thawed' | 'not-frozen' | 'silent'> {
    return 'not-frozen';
  }

  async runInGuest(): Promise<GuestCommandReport> {
    return { outcome: 'not-begun', reason: 'a fake machine has no guest agent' };
  }

  async announce(): Promise<void> {
    // It is plugged into nothing.
  }

  async consolePicture(): Promise<void> {
    throw failure('CONSOLE_PICTURE_FAILED', 'a fake machine has no console');
  }

  pause(): Promise<void> {
    return this.#command(
      'pause',
      async () => this.#machine.pause(),
      () => failure('PAUSE_FAILED', 'the machine refused'),
    );
  }

  resume(): Promise<void> {
    return this.#actor.turn('resume', () => this.#machine.resume());
  }

  async pressPowerButton(): Promise<void> {
    await this.quit();
  }

  async quit(): Promise<void> {
    await this.#actor.turn('quit', () => undefined);
    if (this.#machine.isAlive) {
      await this.#machine.guestFlush();
      this.#machine.kill();
    }
    await this.gone;
  }

  onEvent(_listener: (event: MachineEvent) => void): () => void {
    return () => undefined;
  }

  async disconnect(): Promise<void> {
    this.#end();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.disconnect();
  }
}

function startFailed(message: string): Failure {
  return failure('MACHINE_START_FAILED', message);
}

function failure(code: keyof typeof HYPERVISOR_ERRORS, message: string, details?: FailureDetails): Failure {
  return new Failure(code, HYPERVISOR_ERRORS[code], message, details);
}
