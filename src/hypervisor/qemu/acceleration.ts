import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Clock, withTimeout } from '../../lib/clock.ts';
import { isFailure, messageOf } from '../../lib/errors.ts';
import { runCommand } from '../../lib/processes.ts';
import { QmpClient } from '../../qmp/index.ts';
import { hypervisorFailure } from '../errors.ts';
import { TEST_GUEST_PORTS, TEST_GUEST_WORD, testGuestSector } from './test-guest.ts';

const PROBE_LIMIT_MS = 15_000;

/**
 * Whether guests run under KVM here, found out by running one: `/dev/kvm` alone proves nothing. It may exist and refuse, or accept
 * and then stop every guest at the first thing that it cannot do for it (nested hosts).
 */
export async function probeAcceleration(
  clock: Clock,
): Promise<{ accelerator: 'kvm' | 'tcg'; reason?: string }> {
  const reason = await whyNoGuest(clock, 'kvm');
  return reason === undefined ? { accelerator: 'kvm' } : { accelerator: 'tcg', reason };
}

/** Runs a guest of a few bytes, and nothing of it is left. Undefined: it came through; otherwise why not. */
export async function whyNoGuest(
  clock: Clock,
  accelerator: 'kvm' | 'tcg',
  sector = testGuestSector(),
): Promise<string | undefined> {
  const directory = await mkdtemp(join(tmpdir(), 'ws-kvm-'));
  const [bootPath, wordPath, qmpPath] = ['boot', 'word', 'qmp'].map((name) => join(directory, name));
  try {
    await writeFile(bootPath!, sector);
    await startStopped({ accelerator, bootPath: bootPath!, wordPath: wordPath!, qmpPath: qmpPath! });
    const stoppedAs = await ranUntil(clock, qmpPath!);
    if ((await readFile(wordPath!, 'latin1')) === TEST_GUEST_WORD) return undefined;
    return stoppedAs === undefined
      ? 'a test guest ended without a word'
      : `the processor of a test guest stopped: ${stoppedAs}`;
  } catch (error) {
    if (!isFailure(error)) throw error;
    return messageOf(error).trim().split('\n').at(-1);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** Returns when the machine can be spoken to. */
async function startStopped(o: {
  accelerator: 'kvm' | 'tcg';
  bootPath: string;
  wordPath: string;
  qmpPath: string;
}): Promise<void> {
  const { word, exit } = TEST_GUEST_PORTS;
  await runCommand(
    'qemu-system-x86_64',
    [
      ['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot', '-S', '-daemonize'],
      [
        '-machine',
        `pc,accel=${o.accelerator}`,
        '-cpu',
        o.accelerator === 'kvm' ? 'host' : 'max',
        '-m',
        '16M',
      ],
      ['-chardev', `file,id=word,path=${o.wordPath}`],
      ['-device', `isa-debugcon,iobase=${word},chardev=word`],
      ['-device', `isa-debug-exit,iobase=${exit},iosize=0x04`],
      ['-qmp', `unix:${o.qmpPath},server=on,wait=off`],
      ['-drive', `if=ide,format=raw,readonly=off,snapshot=on,file=${o.bootPath}`],
    ].flat(),
  );
}

/** Lets the guest run until its machine has ended, or its processor has stopped: then as what. The machine is gone on return. */
async function ranUntil(clock: Clock, qmpPath: string): Promise<string | undefined> {
  await using qmp = await QmpClient.connect({ path: qmpPath, clock });
  const stopped = Promise.withResolvers<void>();
  qmp.subscribe(({ event }) => {
    if (event === 'STOP') stopped.resolve();
  });
  try {
    return await withTimeout(
      clock,
      PROBE_LIMIT_MS,
      async () => {
        await unlessGone(qmp.execute('cont'));
        const hasEnded = await Promise.race([qmp.closed.then(() => true), stopped.promise]);
        if (hasEnded) return undefined;
        return (await unlessGone(qmp.execute<{ status: string }>('query-status')))?.status;
      },
      () => hypervisorFailure('MACHINE_START_FAILED', `a test guest said nothing for ${PROBE_LIMIT_MS} ms`),
    );
  } finally {
    await unlessGone(qmp.execute('quit'));
    await qmp.closed;
  }
}

/** Undefined if the machine has ended before it answered. */
async function unlessGone<T>(answer: Promise<T>): Promise<T | undefined> {
  try {
    return await answer;
  } catch (error) {
    if (isFailure(error, 'QMP_DISCONNECTED')) return undefined;
    throw error;
  }
}
