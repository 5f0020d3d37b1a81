import { type Clock, sleep, throwIfAborted } from '../lib/clock.ts';
import type { Random } from '../lib/random.ts';
import { AgentChannel, agentNonsense } from './agent-channel.ts';
import {
  execStatusOf,
  fieldsOf,
  fileSystemsOf,
  flagOf,
  type GuestFileSystem,
  type GuestInterface,
  type GuestOsInfo,
  interfacesOf,
  osInfoOf,
  textOf,
  wholeOf,
} from './agent-values.ts';
import { qmpFailure } from './errors.ts';

const SYNC_TIMEOUT_MS = 5000;
const COMMAND_TIMEOUT_MS = 10_000;
const EXEC_TIMEOUT_MS = 60_000;
const FIRST_POLL_MS = 10;
const LAST_POLL_MS = 500;
/** Bytes per `guest-file-read` and `-write`: small enough to keep the channel free for others. */
const FILE_PIECE_BYTES = 48 * 1024;
const CAPTURE_BYTES = 64 * 1024;
/** Two streams of this size still fit into the longest reply that is read. */
const CAPTURE_BYTES_MAX = 1024 * 1024;
/** In base64, and a little more, which tells that there was more. */
const CAPTURE_STRING_BYTES = 4 * Math.ceil((CAPTURE_BYTES_MAX + 3) / 3);

export interface AgentConnectOptions {
  /** Path of the Unix socket behind the channel `org.qemu.guest_agent.0`. */
  readonly path: string;
  readonly clock: Clock;
  readonly random: Random;
  /** For the first synchronisation. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

export interface AgentCallOptions {
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

export interface ExecOptions extends AgentCallOptions {
  /** Standard input of the program. */
  readonly input?: string;
  /** Bytes kept of each output stream, at most 1 MiB. */
  readonly captureBytesMax?: number;
  /** Told as soon as the program runs. */
  readonly onStarted?: (processId: number) => void;
}

export interface ExecResult {
  /** 128 + number of the signal if one ended it. */
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
  /** Some output was cut off. */
  readonly truncated: boolean;
}

/**
 * The QEMU guest agent of one machine. QEMU serves one client per socket: keep the connection no longer than
 * needed, and close it before a `FreezeGuard` is started for the same machine.
 *
 * Methods may be called at the same time; the agent gets the commands one after the other. Any of them may
 * fail with QMP_AGENT_NO_ANSWER (the command was not sent), QMP_AGENT_TIMEOUT (it was, and may still be
 * carried out), QMP_AGENT_DISCONNECTED, QMP_AGENT_PROTOCOL, QMP_AGENT_REPLY_TOO_LONG and
 * QMP_AGENT_COMMAND_FAILED. While the guest is frozen its agent refuses all but `ping`, `freezeStatus` and `thaw`.
 */
export class GuestAgent implements AsyncDisposable {
  readonly #channel: AgentChannel;
  readonly #clock: Clock;

  private constructor(channel: AgentChannel, clock: Clock) {
    this.#channel = channel;
    this.#clock = clock;
  }

  /**
   * Connects and makes sure that the agent answers to us and now: what it had sent to earlier clients is
   * dropped. QMP_AGENT_UNREACHABLE, QMP_AGENT_NO_ANSWER.
   */
  static async connect(o: AgentConnectOptions): Promise<GuestAgent> {
    const channel = await AgentChannel.connect(o);
    try {
      await channel.sync(o.timeoutMs ?? SYNC_TIMEOUT_MS, o.signal);
    } catch (error) {
      await channel.close();
      throw error;
    }
    return new GuestAgent(channel, o.clock);
  }

  async ping(o: AgentCallOptions = {}): Promise<void> {
    await this.#call('guest-ping', undefined, o);
  }

  async freezeStatus(o: AgentCallOptions = {}): Promise<'frozen' | 'thawed'> {
    const status = await this.#call('guest-fsfreeze-status', undefined, o);
    if (status !== 'frozen' && status !== 'thawed') throw agentNonsense('the freeze status is unknown');
    return status;
  }

  /**
   * Flushes and freezes all local file systems of the guest; resolves with their number. Whoever calls this
   * must thaw whatever happens: outside of a `FreezeGuard` nobody does when this process ends.
   */
  async freeze(o: AgentCallOptions = {}): Promise<number> {
    return wholeOf(await this.#call('guest-fsfreeze-freeze', undefined, o), 'the number of file systems');
  }

  /** Thaws all file systems; resolves with the number of those that were frozen. Harmless if none is. */
  async thaw(o: AgentCallOptions = {}): Promise<number> {
    return wholeOf(await this.#call('guest-fsfreeze-thaw', undefined, o), 'the number of file systems');
  }

  /**
   * Runs a program in the guest, without a shell, and waits for its end. However much it prints, no more than is kept is held
   * here. After QMP_AGENT_TIMEOUT or an abort
   * the program goes on in the guest: the agent cannot end it.
   */
  async exec(path: string, args: readonly string[], o: ExecOptions = {}): Promise<ExecResult> {
    const { input, timeoutMs = EXEC_TIMEOUT_MS, captureBytesMax = CAPTURE_BYTES, signal } = o;
    const deadlineMs = this.#clock.monotonicMs() + timeoutMs;
    const started = await this.#call(
      'guest-exec',
      {
        path,
        arg: args,
        'capture-output': true,
        ...(input === undefined ? {} : { 'input-data': Buffer.from(input).toString('base64') }),
      },
      { timeoutMs: Math.min(timeoutMs, COMMAND_TIMEOUT_MS), ...(signal ? { signal } : {}) },
    );
    const pid = wholeOf(fieldsOf(started, 'the started program').pid, 'the process id');
    o.onStarted?.(pid);
    for (let pauseMs = FIRST_POLL_MS; ; pauseMs = Math.min(2 * pauseMs, LAST_POLL_MS)) {
      const status = execStatusOf(
        await this.#call(
          'guest-exec-status',
          { pid },
          {
            ...(signal ? { signal } : {}),
            stringBytesMax: CAPTURE_STRING_BYTES,
          },
        ),
      );
      if (status.exited) {
        const limit = Math.min(captureBytesMax, CAPTURE_BYTES_MAX);
        return {
          exitCode: status.exitCode,
          stdout: status.stdout.toString('utf8', 0, limit),
          stderr: status.stderr.toString('utf8', 0, limit),
          truncated: status.cut || status.stdout.length > limit || status.stderr.length > limit,
        };
      }
      if (this.#clock.monotonicMs() + pauseMs > deadlineMs) {
        throw qmpFailure('QMP_AGENT_TIMEOUT', `${path} still runs in the guest after ${timeoutMs} ms`, {
          context: { command: 'guest-exec', path, pid, timeoutMs },
        });
      }
      await sleep(this.#clock, pauseMs, signal);
    }
  }

  /** A whole file of the guest; QMP_AGENT_FILE_TOO_LARGE if it has more than `bytesMax` bytes. */
  readFile(path: string, bytesMax: number, o: AgentCallOptions = {}): Promise<Buffer> {
    return this.#withFile(path, 'rb', o, async (handle) => {
      const pieces: Buffer[] = [];
      for (let size = 0; ; ) {
        throwIfAborted(o.signal);
        const reply = fieldsOf(
          await this.#call('guest-file-read', { handle, count: FILE_PIECE_BYTES }, o),
          'a part of a file',
        );
        const piece = Buffer.from(textOf(reply['buf-b64'], 'the content of a file'), 'base64');
        const atEnd = flagOf(reply.eof, 'the end of a file');
        if (piece.length > FILE_PIECE_BYTES) throw agentNonsense('it gave more of a file than asked for');
        if (piece.length === 0 && !atEnd) throw agentNonsense('it gave nothing of a file that goes on');
        size += piece.length;
        if (size > bytesMax) {
          throw qmpFailure('QMP_AGENT_FILE_TOO_LARGE', `${path} has more than ${bytesMax} bytes`, {
            context: { path, bytesMax },
          });
        }
        pieces.push(piece);
        if (atEnd) return Buffer.concat(pieces);
      }
    });
  }

  /** Creates or replaces a file of the guest. Flushed to the guest's file system, not to its disk. */
  writeFile(path: string, data: Uint8Array | string, o: AgentCallOptions = {}): Promise<void> {
    const bytes = Buffer.from(data);
    return this.#withFile(path, 'wb', o, async (handle) => {
      for (let offset = 0; offset < bytes.length; ) {
        throwIfAborted(o.signal);
        const piece = bytes.subarray(offset, offset + FILE_PIECE_BYTES);
        const reply = await this.#call(
          'guest-file-write',
          { handle, 'buf-b64': piece.toString('base64') },
          o,
        );
        const count = wholeOf(fieldsOf(reply, 'a written part').count, 'the number of bytes written');
        if (count === 0 || count > piece.length)
          throw agentNonsense('it wrote a number of bytes that cannot be');
        offset += count;
      }
      await this.#call('guest-file-flush', { handle }, o);
    });
  }

  async interfaces(o: AgentCallOptions = {}): Promise<GuestInterface[]> {
    return interfacesOf(await this.#call('guest-network-get-interfaces', undefined, o));
  }

  async osInfo(o: AgentCallOptions = {}): Promise<GuestOsInfo> {
    return osInfoOf(await this.#call('guest-get-osinfo', undefined, o));
  }

  /** The mounted file systems of the guest that lie on disks. */
  async fileSystems(o: AgentCallOptions = {}): Promise<GuestFileSystem[]> {
    return fileSystemsOf(await this.#call('guest-get-fsinfo', undefined, o));
  }

  /**
   * Asks the guest to shut down. Resolves when the agent has taken the request or is gone; that the guest has
   * ended is told by QEMU's SHUTDOWN event alone.
   */
  shutdown(mode: 'powerdown' | 'reboot' | 'halt'): Promise<void> {
    return this.#channel.announce('guest-shutdown', { mode }, SYNC_TIMEOUT_MS);
  }

  close(): Promise<void> {
    return this.#channel.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #call(
    command: string,
    args: object | undefined,
    o: AgentCallOptions & { readonly stringBytesMax?: number },
  ): Promise<unknown> {
    return this.#channel.request(command, args, { timeoutMs: COMMAND_TIMEOUT_MS, ...o });
  }

  async #withFile<T>(
    path: string,
    mode: 'rb' | 'wb',
    o: AgentCallOptions,
    work: (handle: number) => Promise<T>,
  ): Promise<T> {
    const handle = wholeOf(await this.#call('guest-file-open', { path, mode }, o), 'the handle of a file');
    // The handle is given back also after an abort, so it is closed without the caller's signal.
    const close = () => this.#call('guest-file-close', { handle }, {});
    let result: T;
    try {
      result = await work(handle);
    } catch (error) {
      // The first failure is the one to tell; a handle left behind is closed when the agent ends.
      await close().catch(() => undefined);
      throw error;
    }
    await close();
    return result;
  }
}
