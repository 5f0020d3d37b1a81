import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { type Clock, systemClock, withTimeout } from '../src/lib/clock.ts';
import { spawnFailure } from '../src/lib/processes.ts';
import { copyLabGuest, type LabGuest } from './build-guest.ts';
import { Control, type ControlEvent } from './control.ts';
import { labFailure } from './errors.ts';

/**
 * What the translator can do, as for machines of the product: under the default model the kernel takes a way of idling that keeps a third of
 * a core busy. Page tables of five levels only cost.
 */
const CPU = 'max,la57=off';

export interface LabDisk {
  /** Names the block node; its file is the node `<name>-file`, the device `disk-<name>`. */
  readonly name: string;
  readonly path: string;
  readonly format: 'qcow2' | 'raw';
}

export interface LabMachineOptions {
  /** Sockets, serial log and the guest's disks go here. Short: a unix socket's path has at most 107 bytes. */
  readonly directory: string;
  /** The guest to boot from copies of its disks, made in `directory`, as disks `system` and `data`. */
  readonly guest?: LabGuest;
  /** Disks in order of device (vda, vdb, …), used as they are; replaces the guest's. */
  readonly disks?: readonly LabDisk[];
  readonly network?: 'none' | 'user';
  readonly extraArgs?: readonly string[];
  readonly memoryMb?: number;
  readonly clock?: Clock;
}

const STOP_LIMIT_MS = 5_000;

/**
 * A plain QEMU machine for tests: what a user of QEMU would start by hand. It runs from the moment
 * `startLabMachine` returns; `stop` is safe to call again and at any time.
 */
export class LabMachine {
  readonly pid: number;
  readonly directory: string;
  readonly disks: readonly LabDisk[];
  /** Settles when QEMU has gone, with its exit code (null: ended by a signal) and its last words. */
  readonly exited: Promise<{ code: number | null; signal: NodeJS.Signals | null; stderr: string }>;
  /** Milliseconds (monotonic) at which QEMU began to run the guest. */
  readonly startedMs: number;
  readonly #child: ChildProcess;
  readonly #control: Control;
  readonly #clock: Clock;
  readonly #agent: AgentWatch;

  constructor(parts: {
    child: ChildProcess;
    control: Control;
    clock: Clock;
    agent: AgentWatch;
    options: LabMachineOptions;
    disks: readonly LabDisk[];
    exited: LabMachine['exited'];
  }) {
    this.pid = parts.child.pid!;
    this.directory = parts.options.directory;
    this.disks = parts.disks;
    this.exited = parts.exited;
    this.startedMs = parts.clock.monotonicMs();
    this.#child = parts.child;
    this.#control = parts.control;
    this.#clock = parts.clock;
    this.#agent = parts.agent;
  }

  /** The monitor for the code under test: one client at a time. */
  get qmpPath(): string {
    return join(this.directory, 'qmp.sock');
  }

  get agentPath(): string {
    return join(this.directory, 'agent.sock');
  }

  /** Where the ledger reports each durable record: see `LedgerPort`. */
  get ledgerPath(): string {
    return join(this.directory, 'ledger.sock');
  }

  get serialPath(): string {
    return join(this.directory, 'serial.log');
  }

  /** Sends a command over the lab's own monitor. */
  execute(command: string, args?: object): Promise<unknown> {
    return this.#control.execute(command, args);
  }

  subscribe(listener: (event: ControlEvent) => void): () => void {
    return this.#control.subscribe(listener);
  }

  /**
   * Resolves when the guest's agent listens, by QEMU's event, with the milliseconds since the start.
   * Throws LAB_TIMEOUT, or LAB_MACHINE_FAILED when QEMU ends before.
   */
  agentReady(limitMs = 60_000): Promise<number> {
    return withTimeout(
      this.#clock,
      limitMs,
      async () => (await this.#agent.opened) - this.startedMs,
      () => labFailure('LAB_TIMEOUT', `the guest agent did not come up in ${limitMs} ms`),
    );
  }

  /** A picture of the screen as PPM in `path`. */
  async screendump(path: string): Promise<void> {
    await this.#control.execute('screendump', { filename: path, format: 'ppm' });
  }

  /** Presses the power button; the guest is expected to shut down: await `exited`. */
  async pressPowerButton(): Promise<void> {
    await this.#control.execute('system_powerdown');
  }

  /** SIGKILL: what QEMU held in memory is lost, as in a crash of the host process. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.exited;
  }

  /** Ends QEMU in order (disks are flushed and closed; the guest is not asked), by force if it must be. */
  async stop(): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) this.#child.kill('SIGTERM');
    const cancel = this.#clock.after(STOP_LIMIT_MS, () => this.#child.kill('SIGKILL'));
    await this.exited;
    cancel();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

/**
 * Starts a machine and returns as soon as its guest runs; its sockets accept connections by then. Give
 * `guest` or `disks`. Throws LAB_MACHINE_FAILED with QEMU's words, TOOL_MISSING.
 */
export async function startLabMachine(options: LabMachineOptions): Promise<LabMachine> {
  const clock = options.clock ?? systemClock;
  const disks = options.disks ?? (options.guest ? await guestDisks(options.guest, options.directory) : []);
  const child = spawn('qemu-system-x86_64', qemuArguments(options, disks), {
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr = (stderr + text).slice(-4096);
  });
  const control = new Control(child.stdin, child.stdout);
  const agent = watchAgent(control, clock);
  child.once('error', (error) => control.end(spawnFailure('qemu-system-x86_64', error)));
  // A test that dies must not leave a machine behind; `stop` is the ordinary way.
  const onExit = () => child.kill('SIGKILL');
  process.once('exit', onExit);
  const exited = closeOf(child).then((exit) => {
    process.removeListener('exit', onExit);
    const gone = labFailure(
      'LAB_MACHINE_FAILED',
      `QEMU ended with ${exit.code ?? exit.signal}: ${stderr.trim()}`,
    );
    control.end(gone);
    agent.fail(gone);
    return { ...exit, stderr };
  });
  try {
    await control.start();
    // The machine waited for this (-S), so that no event of the guest is missed.
    await control.execute('cont');
  } catch (error) {
    child.kill('SIGKILL');
    throw error;
  }
  return new LabMachine({ child, control, clock, agent, options, disks, exited });
}

/** Settles when a child has gone and all that it said has been read. */
function closeOf(child: ChildProcess): Promise<{ code: number | null; signal: NodeJS.Signals | null }> {
  return new Promise((resolve) => child.once('close', (code, signal) => resolve({ code, signal })));
}

async function guestDisks(guest: LabGuest, directory: string): Promise<LabDisk[]> {
  const copy = await copyLabGuest(guest, directory);
  return [
    { name: 'system', path: copy.systemDisk, format: 'qcow2' },
    { name: 'data', path: copy.dataDisk, format: 'qcow2' },
  ];
}

function qemuArguments(options: LabMachineOptions, disks: readonly LabDisk[]): string[] {
  const socket = (name: string) =>
    `socket,id=${name},path=${join(options.directory, `${name}.sock`)},server=on,wait=off`;
  const port = (chardev: string, name: string) => [
    ...['-chardev', socket(chardev)],
    ...['-device', `virtserialport,bus=ports.0,chardev=${chardev},name=${name},id=${chardev}-port`],
  ];
  const network =
    options.network === 'user'
      ? ['-netdev', 'user,id=net0', '-device', 'virtio-net-pci,netdev=net0,romfile=']
      : [];
  return [
    ...['-name', 'lab', '-machine', 'q35', '-accel', 'tcg', '-cpu', CPU],
    ...['-m', String(options.memoryMb ?? 256)],
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-vga', 'std', '-S'],
    ...['-chardev', 'stdio,id=control,signal=off', '-mon', 'chardev=control,mode=control'],
    ...['-chardev', socket('qmp'), '-mon', 'chardev=qmp,mode=control'],
    ...['-serial', `file:${join(options.directory, 'serial.log')}`],
    ...['-device', 'virtio-serial-pci,id=ports'],
    ...port('agent', 'org.qemu.guest_agent.0'),
    ...port('ledger', 'org.warmsite.ledger'),
    ...disks.flatMap(diskArguments),
    ...network,
    ...(options.extraArgs ?? []),
  ];
}

function diskArguments(disk: LabDisk, index: number): string[] {
  const node = {
    driver: disk.format,
    'node-name': disk.name,
    file: { driver: 'file', 'node-name': `${disk.name}-file`, filename: disk.path },
  };
  return [
    ...['-blockdev', JSON.stringify({ ...node, discard: 'unmap' })],
    ...['-device', `virtio-blk-pci,id=disk-${disk.name},drive=${disk.name},bootindex=${index}`],
  ];
}

interface AgentWatch {
  /** The monotonic time at which the agent opened its port. */
  readonly opened: Promise<number>;
  fail(why: Error): void;
}

function watchAgent(control: Control, clock: Clock): AgentWatch {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  // Whoever asks for the agent gets the rejection; a machine that nobody asks may end without one.
  promise.catch(() => undefined);
  control.subscribe(({ event, data }) => {
    if (event === 'VSERPORT_CHANGE' && data?.id === 'agent-port' && data.open === true)
      resolve(clock.monotonicMs());
  });
  return { opened: promise, fail: reject };
}
