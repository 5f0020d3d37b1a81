import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Clock, withTimeout } from '../../lib/clock.ts';
import { isFailure, messageOf } from '../../lib/errors.ts';
import { QmpClient } from '../../qmp/index.ts';
import { hypervisorFailure } from '../errors.ts';
import { type BoundServer, startBound } from './bound-process.ts';
import { TEST_GUEST_PORTS, TEST_GUEST_WORD, testGuestRom, testGuestSector } from './test-guest.ts';

const PROBE_LIMIT_MS = 15_000;

/**
 * Whether guests run under KVM here, found out by running one: `/dev/kvm` alone proves nothing. It may exist and refuse, or accept
 * and then stop every guest at the first thing that it cannot do for it (nested hosts).
 */
export async function probeAcceleration(
  clock: Clock,
): Promise<{ accelerator: 'kvm' | 'tcg'; reason?: string }> {
  // Where KVM carries out a guest's first instructions by itself, a firmware takes a second or more: it comes last.
  const reason =
    (await whyNoGuest(clock, 'kvm', { rom: testGuestRom() })) ??
    (await whyNoGuest(clock, 'kvm', { sector: testGuestSector() }));
  return reason === undefined ? { accelerator: 'kvm' } : { accelerator: 'tcg', reason };
}

/** Runs a guest of a few bytes, and nothing of it is left. Undefined: it came through; otherwise why not. */
export async function whyNoGuest(
  clock: Clock,
  accelerator: 'kvm' | 'tcg',
  guest: { readonly rom: Buffer } | { readonly sector: Buffer },
): Promise<string | undefined> {
  const directory = await mkdtemp(join(tmpdir(), 'ws-kvm-'));
  const [bootPath, wordPath, qmpPath] = ['boot', 'word', 'qmp'].map((name) => join(directory, name));
  try {
    await writeFile(bootPath!, 'rom' in guest ? guest.rom : guest.sector);
    const boot =
      'rom' in guest
        ? ['-bios', bootPath!]
        : ['-drive', `if=ide,format=raw,readonly=off,snapshot=on,file=${bootPath}`];
    const machine = await startStopped({ accelerator, boot, wordPath: wordPath!, qmpPath: qmpPath! });
    let stoppedAs: string | undefined;
    try {
      stoppedAs = await ranUntil(clock, qmpPath!, machine);
    } finally {
      await machine.end();
    }
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

/** It ends with this process: nobody would ever look for what is left of a test guest. */
function startStopped(o: {
  accelerator: 'kvm' | 'tcg';
  boot: readonly string[];
  wordPath: string;
  qmpPath: string;
}): Promise<BoundServer> {
  const { word, exit } = TEST_GUEST_PORTS;
  const cpu = o.accelerator === 'kvm' ? 'host' : 'max';
  return startBound(
    'qemu-system-x86_64',
    [
      ['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot', '-S'],
      ['-machine', `pc,accel=${o.accelerator}`, '-cpu', cpu, '-m', '16M'],
      ['-chardev', `file,id=word,path=${o.wordPath}`],
      ['-device', `isa-debugcon,iobase=${word},chardev=word`],
      ['-device', `isa-debug-exit,iobase=${exit},iosize=0x04`],
      ['-qmp', `unix:${o.qmpPath},server=on,wait=off`],
      o.boot,
    ].flat(),
  );
}

/** Lets the guest run until its machine has ended, or its processor has stopped: then as what. Throws what it said if it does not start. */
function ranUntil(clock: Clock, qmpPath: string, machine: BoundServer): Promise<string | undefined> {
  const late = () =>
    hypervisorFailure('MACHINE_START_FAILED', `a test guest said nothing for ${PROBE_LIMIT_MS} ms`);
  return withTimeout(
    clock,
    PROBE_LIMIT_MS,
    async () => {
      await using qmp = await machine.connected({
        ...{ clock, path: qmpPath },
        connect: () => QmpClient.connect({ path: qmpPath, clock }),
        mayCome: (error) => isFailure(error, 'QMP_UNREACHABLE'),
        ended: (words, cause) =>
          hypervisorFailure('MACHINE_START_FAILED', words || 'a test guest could not be started', { cause }),
      });
      const stopped = Promise.withResolvers<void>();
      qmp.subscribe(({ event }) => {
        if (event === 'STOP') stopped.resolve();
      });
      await unlessGone(qmp.execute('cont'));
      const hasEnded = await Promise.race([qmp.closed.then(() => true), stopped.promise]);
      if (hasEnded) return undefined;
      return (await unlessGone(qmp.execute<{ status: string }>('query-status')))?.status;
    },
    late,
  );
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
