import { join } from 'node:path';
import { connectGuest, type RunningMachine } from '../hypervisor/index.ts';
import { sleep } from '../lib/clock.ts';
import { isFailure, messageOf } from '../lib/errors.ts';
import { readSmallFile } from '../lib/files.ts';
import { consoleCommand, readNonceOf } from './console-picture.ts';
import { decodePpm, type Picture } from './picture.ts';
import type { FailoverTools } from './tools.ts';
import type { NonceVerdict } from './verdict.ts';

const DRAW_LIMIT_MS = 15_000;
const CONNECT_LIMIT_MS = 5_000;
/** A screen of 16 million pixels and its head. */
const PPM_BYTES_MAX = 64 * 1024 * 1024;
/** What was written to a console may take a frame or two until it is in the picture; QEMU has no event for that. */
const LOOKS_MAX = 6;
const LOOK_AGAIN_MS = 250;

export interface Screen {
  readonly picture: Picture | undefined;
  readonly nonce: NonceVerdict;
}

/** Draws a fresh nonce through the guest's agent, if `withAgent`, and looks until it shows, a second and a half at most. */
export async function proveScreen(
  tools: FailoverTools,
  machine: RunningMachine,
  o: { readonly runDirectory: string; readonly withAgent: boolean; readonly signal?: AbortSignal },
): Promise<Screen> {
  const nonce = tools.random.bytes(8).toString('hex');
  if (!(o.withAgent && (await drawNonce(tools, machine, nonce, o.signal)))) {
    return { picture: await takePicture(tools, machine, o.runDirectory), nonce: 'not-drawn' };
  }
  for (let look = 1; ; look++) {
    const picture = await takePicture(tools, machine, o.runDirectory);
    if (picture && readNonceOf(picture) === nonce) return { picture, nonce: 'read' };
    if (look === LOOKS_MAX) return { picture, nonce: 'not-read' };
    await sleep(tools.clock, LOOK_AGAIN_MS, o.signal);
  }
}

/** Whether the guest says that it has drawn the nonce. */
async function drawNonce(
  { clock, log }: FailoverTools,
  machine: RunningMachine,
  nonce: string,
  signal?: AbortSignal,
): Promise<boolean> {
  const options = signal ? { signal } : {};
  try {
    await using guest = await connectGuest(machine.sockets, {
      clock,
      timeoutMs: CONNECT_LIMIT_MS,
      ...options,
    });
    const { path, args } = consoleCommand(nonce);
    const { exitCode } = await guest.exec(path, args, { timeoutMs: DRAW_LIMIT_MS, ...options });
    return exitCode === 0;
  } catch (error) {
    if (!isFailure(error) || !error.code.startsWith('QMP_AGENT_')) throw error;
    log.info('boot.nonce-not-drawn', { reason: messageOf(error) });
    return false;
  }
}

/** What is on the screen now; undefined if no picture can be taken of it or it is none. */
export async function takePicture(
  { files, log }: FailoverTools,
  machine: RunningMachine,
  runDirectory: string,
): Promise<Picture | undefined> {
  const path = join(runDirectory, 'console.ppm');
  try {
    await machine.consolePicture(path);
    const ppm = await readSmallFile(files, path, PPM_BYTES_MAX);
    return ppm && decodePpm(ppm);
  } catch (error) {
    if (!isFailure(error)) throw error;
    log.info('boot.no-picture', { reason: messageOf(error) });
    return undefined;
  } finally {
    await files.remove(path);
  }
}
