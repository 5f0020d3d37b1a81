import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { chmod, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  buildLabGuest,
  copyLabGuest,
  LAB_CACHE,
  type LabGuest,
  type LabMachine,
  LedgerPort,
  startLabMachine,
} from '../../lab/index.ts';
import { namesIn, publishDirectory } from '../../lab/kernel.ts';
import type { Hypervisor, RunningMachine } from '../../src/hypervisor/index.ts';
import { systemClock, withTimeout } from '../../src/lib/clock.ts';
import { runCommand } from '../../src/lib/processes.ts';
import { QmpClient } from '../../src/qmp/index.ts';
import { inGuest } from './failover-site.ts';
import { startingBy } from './starting-by.ts';

/** Guests run by translation where there is no KVM. */
const BOOT_LIMIT_MS = 120_000;
const SAVE_LIMIT_MS = 60_000;

/**
 * A lab guest a moment after it has booted: its disks, and the state of its machine at the same instant. A machine that is started
 * with both goes on from there, after a tenth of the work of a boot. Masters, as those of a lab guest.
 */
export interface BootedGuest extends LabGuest {
  /** A migration stream of QEMU. */
  readonly statePath: string;
}

/** A kind of machine that lab guests are booted in. */
export interface MachineKind {
  /** Everything that the state of a machine depends on beside disks and QEMU. */
  readonly key: string;
  /** Starts a machine on copies of these disks in `directory`, which is for its sockets, too. */
  start(masters: LabGuest, directory: string): Promise<StartedMachine>;
}

export interface StartedMachine {
  readonly disks: LabGuest;
  readonly qmpPath: string;
  readonly agentPath: string;
  readonly ledgerPath: string;
  end(): Promise<void>;
}

/**
 * The lab guest booted in a kind of machine. It is made once, beside the lab guest, and found again by everything that it is made
 * of; concurrent callers are safe. Its clock stands at the time when it was made.
 */
export async function bootedGuest(kind: MachineKind): Promise<BootedGuest> {
  const masters = await buildLabGuest();
  const home = join(LAB_CACHE, `booted-${await digestOf(masters, kind)}`);
  const booted = guestIn(home);
  if ((await namesIn(home)).length > 0) return booted;
  const work = await mkdtemp(join(LAB_CACHE, 'booted-aside-'));
  // Unix sockets have short paths.
  const directory = await mkdtemp(join(tmpdir(), 'ws-'));
  try {
    const machine = await kind.start(masters, directory);
    try {
      await saveBooted(machine, guestIn(work).statePath);
    } finally {
      await machine.end();
    }
    await copyLabGuest(machine.disks, work);
    for (const path of Object.values(guestIn(work))) await chmod(path, 0o444);
    await publishDirectory(work, home);
  } finally {
    await rm(work, { recursive: true, force: true });
    await rm(directory, { recursive: true, force: true });
  }
  return booted;
}

/** The arguments of a QEMU that goes on from there; its guest runs when the state has been read, unless it is told not to. */
export function resumingFrom({ statePath }: BootedGuest): string[] {
  return ['-incoming', `exec:cat ${quoted(statePath)}`];
}

/** A lab machine as one that somebody else has started, whose guest runs already. */
export async function startBootedLabMachine(directory: string): Promise<LabMachine> {
  const guest = await bootedGuest(LAB_MACHINE);
  const lab = await startLabMachine({ directory, guest, extraArgs: resumingFrom(guest) });
  try {
    await lab.agentReady(SAVE_LIMIT_MS);
  } catch (error) {
    await lab.stop();
    throw error;
  }
  return lab;
}

const LAB_MACHINE: MachineKind = {
  key: readFileSync(join(import.meta.dirname, '..', '..', 'lab', 'qemu.ts'), 'utf8'),
  start: async (guest, directory) => {
    const lab = await startLabMachine({ directory, guest });
    const [system, data] = lab.disks;
    const { qmpPath, agentPath, ledgerPath } = lab;
    const disks = { systemDisk: system!.path, dataDisk: data!.path };
    return { ...{ disks, qmpPath, agentPath, ledgerPath }, end: () => lab.stop() };
  },
};

/** A hypervisor whose first machine goes on from where a booted guest is; machines that are started later boot from their disks. */
export function resumingFirst(hypervisor: Hypervisor, guest: BootedGuest): Hypervisor {
  let isFirst = true;
  return startingBy(hypervisor, async (request) => {
    if (!isFirst) return hypervisor.start(request);
    isFirst = false;
    const extraArguments = [...(request.extraArguments ?? []), ...resumingFrom(guest)];
    const machine = await hypervisor.start({ ...request, extraArguments });
    await runs(machine);
    return machine;
  });
}

async function saveBooted(machine: StartedMachine, statePath: string): Promise<void> {
  const ledger = await LedgerPort.connect({ path: machine.ledgerPath, clock: systemClock });
  await ledger.reached(20, BOOT_LIMIT_MS);
  ledger.close();
  // What the guest starts behind its agent is to be there, too.
  await inGuest(machine, 'while pidof behind > /dev/null; do usleep 20000; done');
  const qmp = await QmpClient.connect({ path: machine.qmpPath, clock: systemClock });
  const capabilities = [{ capability: 'events', state: true }];
  await qmp.execute('migrate-set-capabilities', { capabilities });
  // The guest stands still when the last of it is saved: not before, or it would not go on by itself where it is read.
  const { promise: ended, resolve } = Promise.withResolvers<unknown>();
  qmp.subscribe(({ event, data }) => {
    if (event === 'MIGRATION' && (data?.status === 'completed' || data?.status === 'failed'))
      resolve(data.status);
  });
  await qmp.execute('migrate', { uri: `exec:cat > ${quoted(statePath)}` });
  const late = () => new Error(`the state of the lab guest was not saved in ${SAVE_LIMIT_MS} ms`);
  const status = await withTimeout(systemClock, SAVE_LIMIT_MS, () => ended, late);
  if (status !== 'completed') throw new Error(`saving the state of the lab guest ended with ${status}`);
  await qmp.close();
}

/** Resolves when the state has been read and the guest goes on. */
async function runs(machine: RunningMachine): Promise<void> {
  const resumed = Promise.withResolvers<void>();
  const end = machine.onEvent(({ name }) => {
    if (name === 'RESUME') resumed.resolve();
  });
  if ((await machine.state()) !== 'running') {
    const gone = machine.gone.then(() => {
      throw new Error('the machine ended while it read the state of the lab guest');
    });
    await Promise.race([resumed.promise, gone]);
  }
  end();
}

function guestIn(directory: string): BootedGuest {
  return {
    systemDisk: join(directory, 'system.qcow2'),
    dataDisk: join(directory, 'data.qcow2'),
    statePath: join(directory, 'state'),
  };
}

/** The masters' own names carry the digest of what they are made of. */
async function digestOf(masters: LabGuest, { key }: MachineKind): Promise<string> {
  const { stdout: version } = await runCommand('qemu-system-x86_64', ['--version']);
  const hash = createHash('sha256').update(await readFile(import.meta.filename));
  hash.update(JSON.stringify([masters.systemDisk.split('/').slice(-2), key, version]));
  return hash.digest('hex').slice(0, 24);
}

/** For a shell. */
function quoted(path: string): string {
  return `'${path.replaceAll("'", "'\\''")}'`;
}
