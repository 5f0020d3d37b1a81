import { Failure, messageOf } from '../../src/lib/errors.ts';
import { silentLog } from '../../src/lib/log.ts';
import type { Peer } from '../../src/peer/index.ts';
import { Zones } from '../../src/recovery-point/index.ts';
import { Replicas } from '../../src/replica/index.ts';
import { DISK_ACTS, type DiskFaults } from './faults.ts';
import { GuestMemory } from './guest.ts';
import { Oracle } from './oracle.ts';
import { PROTECTED_SITE, ProtectedSite, RECOVERY_SITES, type Wrappers } from './protected-site.ts';
import { RecoverySite } from './recovery-site.ts';
import { isSigned } from './signing.ts';
import { chooseCutMode } from './sim-disk.ts';
import { SimFiles } from './sim-files.ts';
import { GOOD_WEATHER, SimNet, SimTarget } from './sim-net.ts';
import { SimRandom } from './sim-random.ts';
import { chooseSwarm, type Swarm, WORLD_EVENTS, type WorldEvent } from './swarm.ts';
import { SimProcess, settled, Turns } from './turns.ts';
import { Violation } from './violation.ts';

/** Steps that may pass between the end of all faults and rest, for each recovery site: one step is one act of one process. */
const REST_STEPS_MAX = 20_000;
/** One step in so many, copies of the disks lose their power and are opened again. */
const PROBE_EVERY = 250;

/** What a run was and did; `violation` is what it found. */
export interface RunReport {
  readonly seed: number;
  readonly steps: number;
  readonly trace: string;
  readonly events: Readonly<Record<string, number>>;
  readonly points: number;
  readonly pointsChecked: number;
  /** How often one of two targets was left behind: the layers that it lacked were merged, and a record took their place. */
  readonly outrun: number;
  /** How often the machine was offered to a recovery site. */
  readonly cessions: number;
  readonly failures: Readonly<Record<string, number>>;
  readonly violation: string | undefined;
  readonly recent: readonly string[];
}

/** Corruption and conflicts: none of the faults here may ever lead to one of these. */
const NEVER = new Set([
  'RECORD_CORRUPT',
  'RECORD_NEWER',
  'REPLICATION_CONFLICT',
  'PROTECTION_FENCED',
  'REPLICATION_ACK_WRONG',
  'REPLICATION_NOT_YOURS',
  'REPLICATION_REQUEST_INVALID',
  'PROTECTION_STALE_BASE',
  'REPLICA_CONTENT_DIFFERS',
  'REPLICA_SIGNATURE_INVALID',
  'REPLICA_LAYER_MISSING',
  'REPLICA_LAYER_DAMAGED',
  'REPLICA_CHAIN_BROKEN',
  'DELTA_CORRUPT',
  'DELTA_INVALID',
  'DELTA_LIMIT',
  'DELTA_LEAVES_CORRUPT',
]);

/** A recovery site as the world sees it. */
interface Recovery {
  readonly site: RecoverySite;
  /** Between it and the protected site. */
  readonly net: SimNet;
  /** Out of reach for so long at the most. */
  readonly partitionMsMax: number;
  partitionEndsAtMs: number;
  published: { pointId: string; sequence: number }[];
}

/** A protected site, one recovery site or two, the networks between them and everything that happens to them, all by one seed. */
export class World {
  readonly #seed: number;
  readonly #chance: SimRandom;
  readonly #swarm: Swarm;
  readonly #turns: Turns;
  readonly #guest: GuestMemory;
  readonly #protected: ProtectedSite;
  readonly #recoveries: readonly Recovery[];
  readonly #oracle: Oracle;
  readonly #events: Record<string, number> = {};
  readonly #failures: Record<string, number> = {};
  #trouble: Error | undefined;
  /** By task: what failed in it last. */
  readonly #said = new Map<string, string>();
  readonly #outrun = new Set<string>();
  #timesOutrun = 0;

  /** `fixed` takes the place of what the seed would choose. */
  constructor(seed: number, wrap: Wrappers = {}, fixed: Partial<Swarm> = {}) {
    this.#seed = seed;
    this.#chance = new SimRandom(seed, 1);
    this.#swarm = { ...chooseSwarm(new SimRandom(seed, 2)), ...fixed };
    this.#turns = new Turns(new SimRandom(seed, 3));
    this.#guest = new GuestMemory(this.#swarm.disks);
    const common = {
      turns: this.#turns,
      swarm: this.#swarm,
      wrap,
      onTrouble: (where: string, error: unknown) => this.#onTrouble(where, error),
    };
    this.#recoveries = RECOVERY_SITES.slice(0, this.#swarm.targets).map((_, index) => {
      const site = new RecoverySite({
        ...{
          ...common,
          siteId: RECOVERY_SITES[index]!,
          name: 'RS'[index]!,
          random: new SimRandom(seed, 4 + 16 * index),
        },
        onPublished: (acknowledgement) => recovery.published.push(acknowledgement),
      });
      const net = new SimNet({
        random: new SimRandom(seed, 5 + 16 * index),
        peer: { siteId: PROTECTED_SITE, name: 'protected' } as Peer,
        server: () => site.server,
      });
      const partitionMsMax = index === 0 ? 300 : this.#swarm.farMsMax;
      const recovery: Recovery = { site, net, partitionMsMax, partitionEndsAtMs: 0, published: [] };
      return recovery;
    });
    this.#protected = new ProtectedSite({
      ...common,
      random: new SimRandom(seed, 6),
      growth: new SimRandom(seed, 7),
      arrivals: new SimRandom(seed, 8),
      handovers: new SimRandom(seed, 9),
      guest: this.#guest,
      targetsFor: (process) =>
        this.#recoveries.map(
          ({ net }, index) => new SimTarget({ siteId: RECOVERY_SITES[index]!, net, process }),
        ),
      onCut: (cutId, diskIds) => this.#oracle.onCut(cutId, diskIds),
      onCeded: (cession) => this.#oracle.onCeded(cession),
    });
    this.#oracle = new Oracle({
      swarm: this.#swarm,
      guest: this.#guest,
      protectedSite: this.#protected,
      recoverySites: this.#recoveries.map(({ site }) => site),
    });
  }

  /** So many steps with faults; then all faults end, and everything must come to rest. */
  async run(steps: number): Promise<RunReport> {
    let violation: string | undefined;
    try {
      await this.#protected.setUp();
      for (const { site } of this.#recoveries) await site.setUp();
      this.#protected.boot();
      for (const { site, net } of this.#recoveries) {
        site.boot();
        net.weather = this.#swarm.weather;
      }
      while (this.#turns.steps < steps * this.#swarm.lengths) await this.#step();
      await this.#comeToRest();
    } catch (error) {
      if (!(error instanceof Violation))
        violation = `${error instanceof Error ? error.stack : String(error)}`;
      else violation = error.message;
    }
    return {
      seed: this.#seed,
      steps: this.#turns.steps,
      trace: this.#turns.traceHash(),
      events: this.#events,
      points: this.#oracle.replicas.reduce((sum, { acknowledged }) => sum + acknowledged.size, 0),
      pointsChecked: this.#oracle.replicas.reduce((sum, { pointsChecked }) => sum + pointsChecked, 0),
      outrun: this.#timesOutrun,
      cessions: this.#protected.cessions,
      failures: this.#failures,
      violation,
      recent: this.#turns.recent,
    };
  }

  async #step(): Promise<void> {
    for (const event of WORLD_EVENTS) {
      if (this.#chance.chance(this.#swarm.rates[event])) await this.#happen(event);
    }
    for (const { net, partitionEndsAtMs } of this.#recoveries)
      if (this.#turns.nowMs > partitionEndsAtMs) net.isPartitioned = false;
    await this.#turns.next();
    await this.#look();
    if (this.#chance.chance(1 / PROBE_EVERY)) await this.#probe();
  }

  async #look(): Promise<void> {
    if (this.#trouble) throw this.#trouble;
    for (const [index, recovery] of this.#recoveries.entries()) {
      const { published } = recovery;
      recovery.published = [];
      for (const { pointId, sequence } of published)
        await this.#oracle.replicas[index]!.onAcknowledged(pointId, sequence);
    }
    await this.#oracle.check();
    this.#oracle.forgetOldCuts();
    for (const { siteId, record } of this.#protected.machine?.targets ?? []) {
      if (!record.outrun) this.#outrun.delete(siteId);
      else if (!this.#outrun.has(siteId)) {
        this.#outrun.add(siteId);
        this.#timesOutrun += 1;
      }
    }
  }

  #onTrouble(where: string, error: unknown): void {
    const code = error instanceof Failure ? error.code : 'BUG';
    const key = `${where}: ${code}`;
    this.#failures[key] = (this.#failures[key] ?? 0) + 1;
    const said = `${key} ${messageOf(error)}`;
    this.#turns.note(said);
    this.#said.set(where, said);
    if (!(error instanceof Failure)) {
      this.#trouble ??= new Violation(`${where}: ${error instanceof Error ? error.stack : String(error)}`);
    } else if (NEVER.has(error.code) && error.context.state !== 'unreachable') {
      this.#trouble ??= new Violation(`${where}: ${error.code}: ${error.message}`);
    }
  }

  async #happen(event: WorldEvent): Promise<void> {
    this.#events[event] = (this.#events[event] ?? 0) + 1;
    this.#turns.note(event);
    const chance = this.#chance;
    const recovery = this.#oneOf(this.#recoveries);
    const { site } = recovery;
    switch (event) {
      case 'kill-protected-site':
        this.#protected.killProcess();
        this.#protected.boot();
        break;
      case 'kill-recovery-site':
        site.killProcess();
        site.boot();
        break;
      case 'cut-power-protected':
        this.#protected.killProcess();
        this.#protected.killMachine();
        await settled();
        await this.#oracle.check();
        this.#protected.disk.crash(chance, chooseCutMode(chance));
        await this.#oracle.afterPowerCut();
        this.#protected.boot();
        break;
      case 'cut-power-recovery':
        site.killProcess();
        site.disk.crash(chance, chooseCutMode(chance));
        site.boot();
        break;
      case 'kill-machine':
        this.#protected.killMachine();
        break;
      case 'fault-protected-disk':
        this.#breakDisk(this.#protected.faults);
        break;
      case 'fault-recovery-disk':
        this.#breakDisk(site.faults);
        break;
      case 'partition':
        recovery.net.isPartitioned = true;
        recovery.partitionEndsAtMs = this.#turns.nowMs + chance.between(1, recovery.partitionMsMax);
        break;
      case 'wall-clock':
        this.#turns.jumpWall(chance.pick([-1, 1]) * chance.pick([500, 3_600_000, 400 * 86_400_000]));
        break;
      case 'write-back':
        chance.pick([this.#protected, site]).disk.background(chance);
        break;
    }
    await settled();
  }

  /** A life with one recovery site asks for no chance here: it is what it would be if there never were two. */
  #oneOf(recoveries: readonly Recovery[]): Recovery {
    return recoveries.length === 1 ? recoveries[0]! : this.#chance.pick(recoveries);
  }

  /** Some call fails soon, once or until the disk is healed, which happens when it is broken the next time. */
  #breakDisk(faults: DiskFaults): void {
    const chance = this.#chance;
    faults.heal();
    if (chance.chance(0.3)) return;
    faults.arm({
      act: chance.chance(0.3) ? 'sync' : chance.pick(DISK_ACTS),
      system: chance.pick(['EIO', 'EIO', 'ENOSPC']),
      after: chance.between(1, 40),
      forever: chance.chance(0.2),
    });
  }

  /** What a power cut at this instant would leave is as good as what there is. */
  async #probe(): Promise<void> {
    const turns = new Turns(new SimRandom(1, 1));
    const process = new SimProcess(turns, 'probe');
    for (const [index, { site }] of this.#recoveries.entries()) {
      const copy = site.disk.copy();
      copy.crash(this.#chance, chooseCutMode(this.#chance));
      const replicas = await Replicas.open(
        {
          files: new SimFiles(copy),
          images: site.imagesOn(copy),
          clock: process.clock,
          log: silentLog,
          zones: new Zones(),
          isSignedBySource: isSigned,
        },
        '/data',
      );
      const [broken] = replicas.broken;
      if (broken) throw new Violation(`after a power cut a replica does not open: ${broken.error.message}`);
      await this.#oracle.replicas[index]!.checkCopy(copy);
    }
    await this.#protected.probe(this.#chance, (disk, machine) =>
      this.#oracle.checkProtectedCopy(disk, machine),
    );
  }

  /** All faults end; one last copy is asked for, and everything must come to rest. */
  async #comeToRest(): Promise<void> {
    for (const { site, net } of this.#recoveries) {
      net.weather = GOOD_WEATHER;
      net.isPartitioned = false;
      site.faults.heal();
      site.isBusy = false;
    }
    this.#protected.faults.heal();
    this.#protected.isBusy = false;
    this.#protected.needsLastCut = true;
    this.#protected.restsStopped = this.#seed % 2 === 0;
    const stepsMax = REST_STEPS_MAX * this.#recoveries.length;
    const end = this.#turns.steps + stepsMax;
    let unrest: string[] = [];
    this.#said.clear();
    while (this.#turns.steps < end) {
      await this.#turns.next();
      await this.#look();
      if (this.#turns.steps % 50 !== 0) continue;
      unrest = this.#protected.needsLastCut ? ['the last cut is not made'] : await this.#oracle.unrest();
      if (unrest.length === 0) {
        await this.#oracle.checkByHand();
        await this.#endProtection();
        return;
      }
    }
    throw new Violation(`no rest after ${stepsMax} steps without faults: ${this.#open(unrest)}`);
  }

  /** What has still to happen, and what each task that failed on the way to it has said last. */
  #open(wishes: readonly string[]): string {
    return [...wishes, ...this.#said.values()].join('; ');
  }

  /** The owner takes the machine back: everything is in the owner's files again, whoever is killed meanwhile. */
  async #endProtection(): Promise<void> {
    const chance = this.#chance;
    const end = this.#turns.steps + REST_STEPS_MAX;
    const site = this.#protected;
    this.#said.clear();
    site.isToEnd = true;
    site.isGuestBusy = true;
    let isToBeKilled = chance.chance(0.7);
    const [hasBegun, within] = chance.pick([
      ...[[() => true, 150] as const, [() => site.hasChangedOver, 30] as const],
      [() => site.hasChangedOver && !site.fake!.isPaused, 8] as const,
    ]);
    let stepsLeft = chance.below(within);
    let hasLostPower = false;
    while (this.#turns.steps < end) {
      if (hasBegun()) stepsLeft -= 1;
      if (isToBeKilled && stepsLeft < 0) {
        isToBeKilled = false;
        hasLostPower = await this.#killWhileEnding();
      }
      await this.#turns.next();
      if (this.#trouble) throw this.#trouble;
      if (site.machine?.record.protection !== null) continue;
      site.isGuestBusy = false;
      await this.#oracle.checkOwnersFiles(hasLostPower);
      return;
    }
    const open = this.#open(site.machine ? [] : ['the site is not up']);
    throw new Violation(`the protection has not ended after ${REST_STEPS_MAX} steps: ${open}`);
  }

  /** The site dies, with its guard or without; then, perhaps, the machine or its host. Tells whether that has lost its power. */
  async #killWhileEnding(): Promise<boolean> {
    const chance = this.#chance;
    const site = this.#protected;
    this.#turns.note('the site is killed while it ends the protection');
    site.killProcess(chance.pick(['lives', 'lives', 'killed']));
    for (let steps = chance.below(30); steps > 0; steps--) await this.#turns.next();
    const fate = chance.pick(['runs on', 'ends', 'ends', 'loses its power'] as const);
    this.#turns.note(`the machine ${fate}`);
    if (fate !== 'runs on') site.killMachine();
    await settled();
    if (fate === 'loses its power') {
      site.disk.crash(chance, chooseCutMode(chance));
      // What it writes from now on is laid upon what was lost.
      site.isGuestBusy = false;
    }
    site.boot();
    return fate === 'loses its power';
  }
}
