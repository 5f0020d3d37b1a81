import type { MachineView } from '../../api/index.ts';
import type { Clock } from '../../lib/clock.ts';
import { type Bandwidth, limitAt, type Zones } from '../../recovery-point/index.ts';
import type { Replica, Replicas } from '../../replica/index.ts';
import { claimElsewhere, type ProtectedMachine } from '../../replication/index.ts';
import { controlFailure } from '../errors.ts';
import type { Leases } from '../leases/leases.ts';
import type { Machines } from '../machines/machines.ts';
import { liesUpon } from '../machines/speaking-home.ts';
import type { PeerLinks } from '../peers/peer-links.ts';
import type { Forwards } from '../replicas/forwards.ts';
import type { Origins } from '../replicas/origins.ts';
import { brokenView, homeView, replicaView } from './views.ts';

/** A machine that a person has named: at home here, replicated here, or (after a failover) both. */
export interface Found {
  readonly machineId: string;
  readonly name: string;
  readonly home: ProtectedMachine | undefined;
  readonly replica: Replica | undefined;
  /** Why nothing is known of the replica that this site has of it. */
  readonly unread?: Error | undefined;
}

/** Why the machine at home here, or the replica of it, cannot be opened. */
export interface Unread {
  readonly home: Error | undefined;
  readonly replica: Error | undefined;
}

/** Finds machines by name or id, at home and replicated ones alike, and shows them. */
export class Inventory {
  readonly #siteId: string;
  readonly #machines: Machines;
  readonly #replicas: Replicas;
  readonly #links: PeerLinks;
  readonly #clock: Clock;
  readonly #zones: Zones;
  readonly #forwards: Forwards;
  readonly #origins: Pick<Origins, 'nameOf'>;

  readonly #leases: Pick<Leases, 'standing'>;

  constructor(o: {
    siteId: string;
    machines: Machines;
    replicas: Replicas;
    links: PeerLinks;
    clock: Clock;
    zones: Zones;
    forwards: Forwards;
    origins: Pick<Origins, 'nameOf'>;
    leases: Pick<Leases, 'standing'>;
  }) {
    this.#siteId = o.siteId;
    this.#machines = o.machines;
    this.#replicas = o.replicas;
    this.#links = o.links;
    this.#clock = o.clock;
    this.#zones = o.zones;
    this.#forwards = o.forwards;
    this.#origins = o.origins;
    this.#leases = o.leases;
  }

  /** Throws MACHINE_UNKNOWN, MACHINE_AMBIGUOUS, and what hinders a machine that cannot be opened. */
  find(reference: string): Found {
    const found = this.all().filter(({ machineId, name }) => machineId === reference || name === reference);
    if (found.length > 1) {
      const said = `${found.length} machines are called ${reference}`;
      throw controlFailure('MACHINE_AMBIGUOUS', said, { context: { reference } });
    }
    if (found[0]) return found[0];
    const broken = this.broken.find(({ machineId }) => machineId === reference);
    if (broken) throw broken.error;
    throw controlFailure('MACHINE_UNKNOWN', `this site has no machine ${reference}`, {
      context: { reference },
    });
  }

  /** What the machine of this id is called. */
  named(machineId: string): string | undefined {
    return this.all().find((found) => found.machineId === machineId)?.name;
  }

  /** Whether the site has anything of the machine, be it that it cannot be opened. */
  has(machineId: string): boolean {
    return [...this.all(), ...this.broken].some((one) => one.machineId === machineId);
  }

  /** The machine at home here; throws MACHINE_NOT_AT_HOME for a replica. */
  home(reference: string): ProtectedMachine {
    const { home, name } = this.find(reference);
    if (home) return home;
    throw controlFailure('MACHINE_NOT_AT_HOME', `${name} is not at home at this site`);
  }

  /** The replica held here; throws MACHINE_NO_REPLICA for a machine that is only at home here. */
  replica(reference: string): Replica {
    const { replica, name } = this.find(reference);
    if (replica) return replica;
    throw controlFailure('MACHINE_NO_REPLICA', `this site holds no replica of ${name}`);
  }

  list(): MachineView[] {
    const views = this.all().map((found) => this.view(found));
    return [
      ...views,
      ...this.#machines.broken.map((broken) => brokenView(broken, 'protected')),
      ...this.#replicas.broken.map((broken) => brokenView(broken, 'replica')),
    ];
  }

  view(found: Found): MachineView {
    const nameOf = (siteId: string) => this.#links.view(siteId)?.name ?? this.#origins.nameOf(siteId);
    const forwards = found.replica ? this.#forwards.reports(found.replica) : [];
    const replica =
      found.replica && replicaView(found.replica, this.#siteId, forwards, nameOf, this.#clock.wallMs());
    const home = this.#machines.get(found.machineId);
    if (!home) return replica!;
    const limitNow = (limits: Bandwidth) => limitAt(limits, this.#clock.wallMs(), this.#zones);
    const standing = this.#leases.standing(found.machineId);
    return {
      ...homeView(home, { nameOf, limitNow, standing }),
      ...(replica?.replica ? { replica: replica.replica } : {}),
    };
  }

  /** Those that cannot be opened; what they are called is not known. */
  get broken(): readonly { readonly machineId: string; readonly error: Error }[] {
    return [...this.#machines.broken, ...this.#replicas.broken];
  }

  /** Of a machine of which the site has both, one may be opened and the other not. */
  unread(machineId: string | undefined): Unread {
    const why = (broken: Inventory['broken']) => broken.find((one) => one.machineId === machineId)?.error;
    return { home: why(this.#machines.broken), replica: why(this.#replicas.broken) };
  }

  /** Those that can be opened, by name. */
  all(): readonly Found[] {
    const all = new Map<string, Found>();
    const unread = new Map(this.#replicas.broken.map(({ machineId, error }) => [machineId, error]));
    for (const { machine } of this.#machines.list()) {
      const { machineId, name: ownName } = machine.record;
      const replica = this.#replicas.get(machineId);
      // Of one that has gone elsewhere and comes back as a replica, the name is what it is called there.
      const isThere = replica !== undefined && !liesUpon(machine, replica);
      const name = isThere && claimElsewhere(machine.record) ? replica.record.machineName : ownName;
      all.set(machineId, { machineId, name, home: machine, replica, unread: unread.get(machineId) });
    }
    for (const replica of this.#replicas.list()) {
      const { machineId, machineName } = replica.record;
      if (!all.has(machineId)) all.set(machineId, { machineId, name: machineName, home: undefined, replica });
    }
    return [...all.values()].sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
  }
}

/**
 * A machine that is at home at another site, and whose points come from there, does not become what it was here before. Throws
 * MACHINE_OUTDATED, and what hinders reading the replica, which may have such points; of a machine that is only offered, as far as is known
 * here, nobody has brought any.
 */
export function checkNotOutdated({ machineId, name, home, replica, unread }: Found): void {
  if (!home || !claimElsewhere(home.record)) return;
  if (unread && home.record.tenure?.state === 'cedes') return;
  if (unread) throw unread;
  if (!replica?.newest || liesUpon(home, replica)) return;
  const said = `this site has newer points of ${name} than the disks that it had here`;
  throw controlFailure('MACHINE_OUTDATED', said, { context: { machineId } });
}
