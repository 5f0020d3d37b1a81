import { closeInOrder, power } from '../hosted-site.ts';
import { Life, type LifeReport } from '../life.ts';
import { SimRandom } from '../sim-random.ts';
import { settled } from '../turns.ts';
import { LeaseOracle } from './lease-oracle.ts';
import { LeaseSite, type LeaseWrappers } from './lease-site.ts';
import {
  chooseLeaseSwarm,
  type FixedLeaseSwarm,
  LEASE_EVENTS,
  type LeaseEvent,
  type LeaseSwarm,
} from './lease-swarm.ts';
import { madeSites, RUN_DIRECTORY, SITE_IDS, SITE_NAMES, type SiteName } from './made-sites.ts';
import { PeopleAtHome, PeopleAtRecovery } from './people.ts';
import { GOOD_CALLS, SimCalls } from './sim-calls.ts';
import { SimHost } from './sim-host.ts';

/** Turns that may pass between the end of all faults and rest. */
const REST_TURNS_MAX = 30_000;

/** What a life was and did. */
export interface LeaseReport extends LifeReport {
  /** How often what was promised was looked for after a power cut. */
  readonly probes: number;
}

/** None of the faults here may ever lead to one of these. */
const NEVER = new Set(['RECORD_CORRUPT', 'RECORD_NEWER', 'LEASE_REQUEST_INVALID', 'LEASE_NOT_YOURS']);

/**
 * The home of a machine, its recovery site and a witness, the network between them, the people at both, and all that happens to them, by
 * one seed.
 *
 * Real: everything of leases and votes (`leaseWorks`: the keeper, the votes, their records on disk, what crosses the wire), the machine at
 * home with its record, its right and its loop (`ProtectedMachine`, `ReplicationLoop` with the watch that ends a fenced guest), the
 * replica and its tenure, its branches' records, the fences of replicas, what sites say to each other of rights (`OfferedRights`,
 * `takeBack`), the acts by which a right is voted for, seized and given up (`votedRight`, `seizeRight`, `undoFailover`).
 *
 * Not real: QEMU, and so the guard (`sim-guards.ts`, by the contract of `LeaseGuard`) and the guests; the steps of `Failovers` and
 * `Machines` around those acts (`people.ts`); the wire, of which only calls are there. Nothing is written by guests, and so nothing is copied: the machine's home asks
 * what the recovery site has, and is answered. Nothing is adopted: who was brought up
 * by a failover is undone, or stays.
 */
export class LeaseWorld {
  readonly #life: Life;
  readonly #chance: SimRandom;
  readonly #swarm: LeaseSwarm;
  readonly #calls: SimCalls;
  readonly #sites: Readonly<Record<SiteName, LeaseSite>>;
  readonly #home: PeopleAtHome;
  readonly #recovery: PeopleAtRecovery;
  readonly #oracle: LeaseOracle;
  #isCalm = false;
  /** An act of people at home is under way. */
  #homeActs = 0;

  /** `fixed` takes the place of what the seed would choose. */
  constructor(seed: number, wrap: LeaseWrappers = {}, fixed: FixedLeaseSwarm = {}) {
    this.#life = new Life(seed, NEVER);
    this.#chance = this.#life.chance;
    const chosen = chooseLeaseSwarm(new SimRandom(seed, 2));
    this.#swarm = { ...chosen, ...fixed, rates: { ...chosen.rates, ...fixed.rates } };
    const { turns } = this.#life;
    this.#calls = new SimCalls({
      ...{ random: new SimRandom(seed, 4), turns },
      onAsk: (call) => this.#life.judged(() => this.#oracle.onAsk(call)),
      onAnswer: (call) => this.#life.judged(() => this.#oracle.onAnswer(call)),
    });
    const site = (name: SiteName, index: number) =>
      new LeaseSite({
        ...{ name, wrap, calls: this.#calls, random: new SimRandom(seed, 5 + index) },
        host: new SimHost({ name, turns, rate: 1 + this.#swarm.drift[index]! / 1000 }),
        onTrouble: (where, error) => this.#life.troubled(where, error),
        onLog: (said) => turns.note(said),
        onNote: ({ act }) => this.#life.count(act),
        onUnfit: () => this.#life.later(1_000, 4_000, () => this.#restart(this.#sites[name])),
      });
    this.#sites = { P: site('P', 0), R: site('R', 1), W: site('W', 2) };
    this.#home = new PeopleAtHome(this.#sites.P);
    this.#recovery = new PeopleAtRecovery(this.#sites.R, wrap);
    const nowMs = () => turns.nowMs;
    this.#oracle = new LeaseOracle({ sites: this.#sites, chance: new SimRandom(seed, 8), nowMs });
  }

  /** So many turns with faults; then all faults end, and everything must come to rest. */
  async run(turns: number): Promise<LeaseReport> {
    const report = await this.#life.lived(async () => {
      const disks = await madeSites();
      for (const name of SITE_NAMES) {
        this.#sites[name].host.disk = disks[name];
        this.#sites[name].boot();
      }
      await this.#begin();
      this.#calls.weather = this.#swarm.weather;
      this.#peopleLook();
      while (this.#life.turns.steps < turns) {
        for (const event of LEASE_EVENTS)
          if (this.#chance.chance(this.#swarm.rates[event])) await this.#happen(event);
        await this.#next();
      }
      await this.#comeToRest();
    });
    return { ...report, probes: this.#oracle.probes };
  }

  /** The machine runs, by leases, before anything goes wrong. */
  async #begin(): Promise<void> {
    const { P, R, W } = this.#sites;
    while (!P.open || !R.open || !W.open) await this.#next();
    const begun = this.#home.lease(this.#swarm.leaseMs, false).then(() => this.#home.start());
    let hasBegun = false;
    void begun.then(() => {
      hasBegun = true;
    });
    while (!hasBegun) await this.#next();
    await begun;
  }

  async #next(): Promise<void> {
    await this.#life.next();
    await this.#oracle.check();
  }

  /** So long as some leases, or only a part of one. */
  #someLeases(most: number): [number, number] {
    return [50, this.#swarm.leaseMs * most];
  }

  #restart(site: LeaseSite): void {
    if (site.isUnguarded && site.open && !this.#closing.has(site)) {
      this.#life.later(50, 500, () => this.#restart(site));
      return;
    }
    site.kill();
    site.boot();
  }

  /** People at both sites look now and then, and do what there is to do. */
  #peopleLook(): void {
    this.#life.fate.clock.after(this.#chance.between(300, 3_000), () => {
      void this.#lookAtHome();
      if (!this.#recovery.isBusy) void this.#lookAtRecovery();
      this.#peopleLook();
    });
  }

  async #lookAtHome(): Promise<void> {
    const { P } = this.#sites;
    const { P: tenure } = this.#oracle.tenures;
    if (!P.open || !tenure || this.#homeActs > 0) return;
    this.#homeActs += 1;
    const { process } = P;
    process!.onEnd(() => {
      this.#homeActs = 0;
    });
    const isMeant = this.#isCalm || this.#chance.chance(0.4);
    if (tenure.state === 'holds' && !P.guest) await this.#life.act('vm start', () => this.#home.start());
    else if (tenure.state === 'holds' && isMeant) this.#home.copy();
    else if (tenure.state !== 'holds' && isMeant)
      await this.#life.act('failover withdraw', () => this.#home.takeBack());
    this.#homeActs = 0;
  }

  async #lookAtRecovery(): Promise<void> {
    const { P, R } = this.#sites;
    const isSilent = !P.host.isOn || this.#calls.isCut(P.siteId, R.siteId);
    if (isSilent && !R.guests.running && this.#chance.chance(0.25)) await this.#happen('fail-over');
    if (this.#recovery.isBusy || this.#oracle.tenures.R?.state !== 'holds' || R.guests.running) return;
    if (!this.#isCalm && !this.#chance.chance(0.2)) return;
    const by = this.#oracle.begunAgain(this.#oracle.tenures.R.claim) ? 'word' : 'votes';
    await this.#life.act('failover restart', () => this.#recovery.restart(by));
  }

  async #happen(event: LeaseEvent): Promise<void> {
    const { P, R, W } = this.#sites;
    const chance = this.#chance;
    const site = this.#sites[chance.pick(SITE_NAMES)];
    if (!this.#isPossible(event, site)) return;
    this.#life.happens(event);
    switch (event) {
      case 'kill-home':
      case 'kill-recovery':
      case 'kill-witness': {
        const killed = { 'kill-home': P, 'kill-recovery': R, 'kill-witness': W }[event];
        killed.kill();
        this.#life.later(1, 3_000, () => killed.boot());
        break;
      }
      case 'close-site':
        void this.#close(site);
        break;
      case 'cut-power-home':
        this.#cutPower(P);
        break;
      case 'cut-power-recovery':
        this.#cutPower(R);
        break;
      case 'cut-power-witness':
        this.#cutPower(W);
        break;
      case 'isolate':
        this.#isolate(site);
        break;
      case 'partition':
        this.#cutLink(site, this.#sites[chance.pick(SITE_NAMES)]);
        break;
      case 'stall':
        this.#stall(site);
        break;
      case 'sleep':
        site.host.sleep();
        this.#life.later(...this.#someLeases(2), () => site.host.wake());
        break;
      case 'kill-guard':
        P.guards.get(RUN_DIRECTORY)!.process.kill();
        break;
      case 'end-guest':
        P.guest!.kill();
        break;
      case 'fault-disk':
        this.#breakDisk(site);
        break;
      case 'wall-clock':
        site.host.jumpWall(chance.pick([-1, 1]) * chance.pick([500, 3_600_000, 400 * 86_400_000]));
        break;
      case 'fail-over':
        void this.#life.act('failover start --ask-witness', () => this.#recovery.failOver('votes'));
        break;
      case 'cancel':
        this.#recovery.cancel();
        break;
      case 'undo':
        void this.#life.act('failover undo', () => this.#recovery.undo());
        break;
      case 'change-leases':
        this.#changeLeases();
        break;
      case 'word':
        this.#giveWord();
        break;
    }
    await settled();
  }

  /** What is not defended against does not happen, nor what nobody would do. */
  #isPossible(event: LeaseEvent, site: LeaseSite): boolean {
    const { P, R } = this.#sites;
    const guard = P.guards.get(RUN_DIRECTORY);
    switch (event) {
      case 'kill-home':
        return P.process !== undefined && !P.isUnguarded;
      case 'close-site':
        return site.open !== undefined && !(site === P && P.isUnguarded);
      case 'stall':
        return site.process !== undefined && !site.host.isAsleep && !(site === P && P.isUnguarded);
      case 'sleep':
        return site.host.isOn && !site.host.isAsleep;
      case 'kill-guard':
        // Its site is there, and starts another one.
        return (
          guard !== undefined &&
          P.open !== undefined &&
          !this.#stalled.has(P) &&
          !P.host.isAsleep &&
          !this.#closing.has(P)
        );
      case 'end-guest':
        return P.guest !== undefined;
      case 'fail-over':
        return R.open !== undefined && !this.#recovery.isBusy;
      case 'cancel':
        return this.#recovery.isBusy;
      case 'undo':
        return R.open !== undefined && !this.#recovery.isBusy && this.#oracle.tenures.R?.state === 'holds';
      case 'change-leases':
        return P.open !== undefined && this.#homeActs === 0 && this.#oracle.tenures.P?.state === 'holds';
      case 'word':
        return (
          (!P.host.isOn && R.open !== undefined && !this.#recovery.isBusy) ||
          (!R.host.isOn && P.open !== undefined)
        );
      case 'kill-recovery':
        return R.process !== undefined;
      case 'kill-witness':
        return this.#sites.W.process !== undefined;
      case 'cut-power-home':
        return P.host.isOn;
      case 'cut-power-recovery':
        return R.host.isOn;
      case 'cut-power-witness':
        return this.#sites.W.host.isOn;
      default:
        return true;
    }
  }

  #cutPower(site: LeaseSite): void {
    site.host.cutPower(this.#chance);
    site.gone();
    this.#life.later(...this.#someLeases(4), () => power(site));
  }

  async #close(site: LeaseSite): Promise<void> {
    const about = { calls: this.#calls, closing: this.#closing, life: this.#life };
    if (await closeInOrder(site, about)) this.#restart(site);
  }

  #cutLink(one: LeaseSite, other: LeaseSite): void {
    if (one === other) return;
    this.#calls.cut(one.siteId, other.siteId);
    this.#life.later(...this.#someLeases(3), () => this.#calls.heal(one.siteId, other.siteId));
  }

  #isolate(site: LeaseSite): void {
    for (const other of Object.values(this.#sites)) this.#cutLink(site, other);
  }

  readonly #stalled = new Set<LeaseSite>();
  readonly #closing = new Set<LeaseSite>();

  /** Its process stands still, and its guests and guards do not. */
  #stall(site: LeaseSite): void {
    const { process } = site;
    this.#life.turns.hold(process!);
    this.#stalled.add(site);
    this.#life.later(...this.#someLeases(1), () => {
      this.#stalled.delete(site);
      if (!site.host.isAsleep) this.#life.turns.letGo(process!, { slept: false });
    });
  }

  /** Some call fails soon, once or until the disk is healed, which happens when it is broken the next time. */
  #breakDisk({ host: { faults } }: LeaseSite): void {
    faults.heal();
    if (!this.#chance.chance(0.3)) this.#life.breakDisk(faults);
  }

  #changeLeases(): void {
    const { P } = this.#sites;
    const { lease } = P.open!.machine!.record;
    const leaseMs = this.#chance.pick([4_000, 6_000, 10_000, 30_000]);
    if (lease) void this.#life.act('vm lease --off', () => this.#home.lease(undefined, false));
    else void this.#life.act('vm lease', () => this.#home.lease(leaseMs, false));
  }

  /** Somebody makes sure that the other side is down, and says so. */
  #giveWord(): void {
    const { P, R } = this.#sites;
    const { P: home, R: recovery } = this.#oracle.tenures;
    if (!P.host.isOn && recovery) {
      // A withdrawal that was on its way may raise the epoch before the word counts.
      for (const above of [1, 2])
        this.#oracle.confirmed({ epoch: recovery.claim.epoch + above, siteId: R.siteId });
      void this.#life.act('failover start --confirm', () => this.#recovery.failOver('word'));
    } else if (!R.host.isOn && home?.state === 'holds' && P.open?.machine?.record.lease) {
      this.#oracle.confirmed(home.claim);
      void this.#life.act('vm lease --off --confirm', () => this.#home.lease(undefined, true));
    } else if (!R.host.isOn && home && home.state !== 'holds') {
      this.#oracle.confirmed({ epoch: home.claim.epoch + 1, siteId: P.siteId });
      void this.#life.act('failover withdraw --confirm', () => this.#home.seizeBack());
    }
  }

  /** All faults end, and everything must come to rest. */
  async #comeToRest(): Promise<void> {
    this.#isCalm = true;
    this.#calls.weather = GOOD_CALLS;
    for (const one of SITE_NAMES)
      for (const other of SITE_NAMES) this.#calls.heal(SITE_IDS[one], SITE_IDS[other]);
    for (const site of Object.values(this.#sites)) {
      site.host.faults.heal();
      site.host.wake();
      power(site);
    }
    const unrest = () => this.#oracle.unrest(this.#recovery.isBusy);
    await this.#life.untilRest(REST_TURNS_MAX, () => this.#next(), unrest);
  }
}
