import { isFailure } from '../../lib/errors.ts';
import type { Log } from '../../lib/log.ts';
import {
  claimElsewhere,
  hasEnded,
  isUnseen,
  type MachineRecord,
  type ProtectedDisk,
  type ProtectedMachine,
} from '../../replication/index.ts';
import type { AlertSink } from '../base/alerts.ts';
import { controlFailure } from '../errors.ts';

/** What QEMU says of a machine to which nobody has given a UUID: it names none. */
const NOBODYS_UUID = '00000000-0000-0000-0000-000000000000';

/** Throws MACHINE_UUID_TAKEN if another of these machines has the UUID. */
export function refuseSecondUuid(
  { name, configuration: { uuid } }: MachineRecord,
  others: readonly MachineRecord[],
): void {
  const other = others.find(({ configuration }) => configuration.uuid === uuid);
  if (!other || uuid === NOBODYS_UUID) return;
  throw controlFailure(
    'MACHINE_UUID_TAKEN',
    `${name} has the UUID ${uuid}, and so has ${other.name}, which is at home at this site already`,
    { context: { uuid, machineId: other.machineId, name: other.name } },
  );
}

/** Throws MACHINE_EXISTS if another of these machines is called so. */
export function refuseTakenName(name: string, others: readonly MachineRecord[]): void {
  const taken = others.find((record) => record.name === name);
  if (!taken) return;
  throw controlFailure('MACHINE_EXISTS', `there is a machine ${name} already`, {
    context: { name, machineId: taken.machineId },
  });
}

/** Two machines on one file would destroy each other's chain. Throws MACHINE_EXISTS. */
export function refuseSharedFiles(
  disks: readonly Pick<ProtectedDisk, 'chain'>[],
  others: readonly MachineRecord[],
): void {
  const paths = new Set(disks.flatMap(({ chain }) => chain.map(({ path }) => path)));
  for (const other of others) {
    const shared = other.disks.flatMap(({ chain }) => chain).find(({ path }) => paths.has(path));
    if (!shared) continue;
    const said = `${shared.path} is a disk of ${other.name} already`;
    throw controlFailure('MACHINE_EXISTS', said, { context: { path: shared.path } });
  }
}

/** What a machine was here before it became another one: it must be no machine any more, whatever has become of its disks. Throws MACHINE_EXISTS. */
export function refuseAtHome(before: Pick<ProtectedMachine, 'record' | 'presence' | 'running'>): void {
  const { machineId, name } = before.record;
  const context = { machineId };
  if (!claimElsewhere(before.record))
    throw controlFailure(
      'MACHINE_EXISTS',
      `${name} is at home at this site on the disks that it had before`,
      {
        context,
        hint: 'As far as this site has heard, those disks are the machine. Look at both with `warmsite vm show`.',
      },
    );
  const { presence } = before;
  if (hasEnded(before) && !isUnseen(presence)) return;
  const reason = 'reason' in presence ? presence.reason : undefined;
  const hinders = isUnseen(presence) ? 'this site has not looked yet whether it runs' : reason;
  const why = hinders === undefined ? '' : `: ${hinders}`;
  const said = `${name} has not ended at this site where it was at home${why}`;
  const hint =
    'It is being ended here, or the site cannot see whether it has: look with `warmsite vm show`, end it with `warmsite vm stop`, and give the command again.';
  throw controlFailure('MACHINE_EXISTS', said, { context, hint });
}

type WatchedMachine = Pick<ProtectedMachine, 'record'> & {
  readonly running: Pick<NonNullable<ProtectedMachine['running']>, 'identity'> | undefined;
};

/** Watches that no two machines run at this site under one UUID, and none under another than it was added with. */
export class IdentityWatch {
  readonly #alerts: AlertSink;
  readonly #log: Log;
  /** By machine id: the UUID of the process that runs. */
  readonly #running = new Map<string, { readonly uuid: string; readonly name: string }>();

  constructor(o: { alerts: AlertSink; log: Log }) {
    this.#alerts = o.alerts;
    this.#log = o.log;
  }

  /** To be asked when another process of the machine may run than before, or none. */
  async look({ record, running }: WatchedMachine): Promise<void> {
    const { machineId, name, configuration } = record;
    if (!running) return this.forget(machineId);
    try {
      const { uuid } = await running.identity();
      const key = `uuid-changed:${machineId}`;
      if (uuid === configuration.uuid) this.#alerts.clear(key);
      else {
        const said = `${name} runs with the UUID ${uuid}; its points have ${configuration.uuid}`;
        this.#alerts.raise(key, 'warning', controlFailure('MACHINE_UUID_CHANGED', said), machineId);
      }
      this.#running.set(machineId, { uuid, name });
      this.#tellTwins();
    } catch (error) {
      if (!isFailure(error)) throw error;
      // It has gone meanwhile, which is told by itself, or does not answer, as everything that is asked of it will tell.
      this.#log.info('machine.identity-unknown', { machine: name, reason: error.message });
    }
  }

  /** The machine runs no more, or is none of this site. */
  forget(machineId: string): void {
    this.#alerts.clear(`uuid-twice:${machineId}`);
    if (this.#running.delete(machineId)) this.#tellTwins();
  }

  #tellTwins(): void {
    for (const [machineId, { uuid, name }] of this.#running) {
      const key = `uuid-twice:${machineId}`;
      const twin = [...this.#running].find(([id, other]) => id !== machineId && other.uuid === uuid)?.[1];
      if (!twin || uuid === NOBODYS_UUID) {
        this.#alerts.clear(key);
        continue;
      }
      const said = `${name} and ${twin.name} run at the same time with one UUID, ${uuid}`;
      this.#alerts.raise(key, 'critical', controlFailure('MACHINE_UUID_TWICE', said), machineId);
    }
  }
}
