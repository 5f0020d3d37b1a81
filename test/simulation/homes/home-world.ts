import { deviceNameOf } from '../../../src/control/machines/machine-disks.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { Zones } from '../../../src/recovery-point/index.ts';
import { Replicas } from '../../../src/replica/index.ts';
import { DirectTarget } from '../../support/direct-target.ts';
import type { FakeMachine } from '../../support/fake-machine.ts';
import { closeInOrder, power } from '../hosted-site.ts';
import { DATA, DISK, imagesOn, makeMachine } from '../leases/made-sites.ts';
import { GOOD_CALLS, SimCalls } from '../leases/sim-calls.ts';
import { SimHost } from '../leases/sim-host.ts';
import { Life, type LifeReport } from '../life.ts';
import { isSigned } from '../signing.ts';
import { SimDisk } from '../sim-disk.ts';
import { SimFiles } from '../sim-files.ts';
import { SimRandom } from '../sim-random.ts';
import { SimProcess, settled, Turns } from '../turns.ts';
import { Contents } from './contents.ts';
import { HomeOracle } from './home-oracle.ts';
import { HomePeople } from './home-people.ts';
import { HOME_NAMES, HOMES, type HomeName, HomeSite, type HomeWrappers } from './home-site.ts';
import {
  chooseHomeSwarm,
  type FixedHomeSwarm,
  HOME_EVENTS,
  type HomeAct,
  type HomeEvent,
  type HomeSwarm,
} from './home-swarm.ts';

/** Turns that may pass between the end of all faults and rest. */
const REST_TURNS_MAX = 40_000;
/** Of a host without power, or of a link that is cut. */
const AWAY_MS_MAX = 20_000;
const DEVICE_NAME = deviceNameOf(DISK.diskId, 'virtio-blk');

/** None of the faults here may ever lead to one of these. */
const NEVER = new Set(['RECORD_CORRUPT', 'RECORD_NEWER']);

/**
 * Two sites, either of which may be the home of a machine, the network between them, the people at both, and all that happens to them,
 * by one seed: the machine is brought up, adopted, protected back and handed over, again and again.
 *
 * Real: everything of `openWorks` that has to do with it (replicas, machines and their loops, failovers, adoptions, the rights of homes and of
 * replicas, fences, branches of what was written under lost claims, what goes over the wire). Not real: QEMU, networks, jobs, reports and the wire below
 * calls and uploads. There are no leases, no retention and no tests: these have simulations of their own.
 */
export class HomeWorld {
  readonly #life: Life;
  readonly #chance: SimRandom;
  readonly #swarm: HomeSwarm;
  readonly #calls: SimCalls;
  readonly #sites: Readonly<Record<HomeName, HomeSite>>;
  readonly #people: Readonly<Record<HomeName, HomePeople>>;
  readonly #contents = new Contents({ sizeBytes: DISK.sizeBytes, deviceName: DEVICE_NAME });
  readonly #oracle: HomeOracle;
  /** Sites at which an act of a person is under way, by their processes. */
  readonly #busy = new Map<HomeName, SimProcess>();
  readonly #closing = new Set<HomeSite>();
  #isCalm = false;
  /** Somebody has ended a protection, or began to: copies of a later one are none of the replica that is there. */
  #isReplicaOlder = false;

  /** `fixed` takes the place of what the seed would choose. */
  constructor(seed: number, wrap: HomeWrappers = {}, fixed: FixedHomeSwarm = {}) {
    this.#life = new Life(seed, NEVER);
    this.#chance = this.#life.chance;
    const chosen = chooseHomeSwarm(new SimRandom(seed, 2));
    this.#swarm = {
      ...chosen,
      rates: { ...chosen.rates, ...fixed.rates },
      chances: { ...chosen.chances, ...fixed.chances },
    };
    const { turns } = this.#life;
    this.#calls = new SimCalls({
      ...{ random: new SimRandom(seed, 4), turns },
      ...{ onAsk: async () => undefined, onAnswer: async () => undefined },
    });
    const site = (name: HomeName, index: number) =>
      new HomeSite({
        ...{ name, wrap, calls: this.#calls, random: new SimRandom(seed, 5 + index) },
        host: new SimHost({ name, turns, rate: 1 }),
        onTrouble: (where, error) => this.#life.troubled(where, error),
        onLog: (said) => turns.note(said),
        onNote: ({ act }) => this.#life.count(act),
        onUnfit: () => this.#life.later(1_000, 4_000, () => this.#restart(this.#sites[name])),
        onGuest: (at, guest, runDirectory) => void this.#runGuest(at, guest, runDirectory),
        onPublished: (at, _replica, pointId) => this.#life.judged(() => this.#oracle.published(at, pointId)),
      });
    this.#sites = { A: site('A', 0), B: site('B', 1) };
    this.#people = { A: new HomePeople(this.#sites.A), B: new HomePeople(this.#sites.B) };
    this.#oracle = new HomeOracle({ sites: this.#sites, contents: this.#contents });
  }

  /** So many turns with faults; then all faults end, and everything must come to rest, with nothing lost. */
  run(turns: number): Promise<LifeReport> {
    return this.#life.lived(async () => {
      const disks = await madeHomes();
      for (const name of HOME_NAMES) {
        this.#sites[name].host.disk = disks[name];
        this.#sites[name].boot();
      }
      while (!HOME_NAMES.every((name) => this.#sites[name].open)) await this.#next();
      this.#calls.weather = this.#swarm.weather;
      for (const name of HOME_NAMES) this.#peopleLook(name);
      while (this.#life.turns.steps < turns) {
        for (const event of HOME_EVENTS)
          if (this.#chance.chance(this.#swarm.rates[event])) await this.#happen(event);
        await this.#next();
      }
      await this.#comeToRest();
    });
  }

  async #next(): Promise<void> {
    await this.#life.next();
    this.#oracle.check();
  }

  /** A guest writes as long as it runs. */
  async #runGuest(name: HomeName, guest: FakeMachine, runDirectory: string): Promise<void> {
    await this.#life.judged(() => this.#oracle.begun(name, guest, runDirectory));
    const line = this.#oracle.lineOf(guest);
    const random = this.#chance;
    while (guest.isAlive) {
      await this.#life.fate.sleep(random.between(1, 2 * this.#swarm.writeEveryMs));
      if (!guest.isAlive || guest.isPaused || this.#isCalm || this.#life.isTroubled) continue;
      await this.#life.judged(() => this.#contents.write(line, guest, (sectors) => random.below(sectors)));
    }
  }

  #restart(site: HomeSite): void {
    site.kill();
    site.boot();
  }

  /** People at a site look now and then, and do what there is to do. */
  #peopleLook(name: HomeName): void {
    this.#life.fate.clock.after(this.#chance.between(300, 3_000), () => {
      const { open } = this.#sites[name];
      if (open && this.#busy.get(name) !== open.process) void this.#look(name);
      this.#peopleLook(name);
    });
  }

  #wants(act: HomeAct): boolean {
    return this.#chance.chance(this.#isCalm ? 0.5 : this.#swarm.chances[act]);
  }

  /** One act, if anything, of those that make sense as the site sees itself. */
  async #look(name: HomeName): Promise<void> {
    const site = this.#sites[name];
    const { home, replica, tenure } = site;
    if (!tenure) return;
    const people = this.#people[name];
    const other = this.#otherOf(name);
    // A site that is up and has nothing of the machine runs it as little as one that is off.
    const isAlone = !other.host.isOn || other.hasNothing;
    const runs = site.guests.length > 0;
    const isIdle = !this.#isCalm;
    const isAdopted = home?.record.adopted !== undefined;
    const isProtected = home !== undefined && home.record.protection !== null;
    const wishes: [boolean, HomeAct, () => Promise<void>][] = home
      ? [
          [isIdle && isAdopted && !isProtected && !runs, 'remove', () => people.remove()],
          [tenure.state === 'holds' && !runs, 'start', () => people.start()],
          [tenure.state === 'holds' && !isProtected, 'protect', () => people.protect()],
          [tenure.state === 'holds' && runs && isIdle, 'cede', () => people.cede()],
          [tenure.state === 'holds' && runs && isIdle, 'stop', () => people.stop(this.#chance.chance(0.3))],
          [tenure.state === 'holds' && isProtected, 'copy', () => people.copy()],
          [tenure.state !== 'holds' && isAlone, 'word', () => people.seizeBack()],
          [tenure.state !== 'holds', 'withdraw', () => people.takeBack()],
          [tenure.state === 'fenced' && isAlone, 'unprotect', () => people.unprotect(true)],
          [isIdle && tenure.state === 'holds' && isProtected, 'unprotect', () => people.unprotect(false)],
        ]
      : [
          [replica!.record.offer !== undefined && tenure.state !== 'holds', 'take', () => people.take()],
          [tenure.state === 'holds' && !runs, 'restart', () => people.restart()],
          [tenure.state === 'holds' && runs, 'adopt', () => people.adopt()],
          [tenure.state === 'holds' && isIdle, 'undo', () => people.undo()],
          [tenure.state !== 'holds' && isAlone, 'word', () => people.failOver()],
        ];
    wishes.push([isIdle, 'clean-up', () => this.#cleanUp(people)]);
    for (const [isMeant, act, work] of wishes)
      if (isMeant && this.#wants(act)) return this.#act(name, act, work);
  }

  #cleanUp(people: HomePeople): Promise<void> {
    return people.cleanup(
      (count) => this.#chance.below(count),
      (line) => this.#oracle.discarded(line),
    );
  }

  #otherOf(name: HomeName): HomeSite {
    return this.#sites[name === 'A' ? 'B' : 'A'];
  }

  /** An act of somebody; that it fails is no surprise. */
  async #act(name: HomeName, act: HomeAct, work: () => Promise<void>): Promise<void> {
    const { process } = this.#sites[name].open!;
    const isHome = this.#sites[name].home !== undefined;
    const said = `${name}: ${act}${isHome ? ' at home' : ''}`;
    this.#busy.set(name, process);
    // A failover that is begun again at a site that holds the machine claims it anew, by the word that was given.
    if (act === 'unprotect') this.#isReplicaOlder = true;
    const isWord = act === 'word' || act === 'restart' || act === 'unprotect';
    if (isWord) this.#oracle.wordBegins(name);
    await this.#life.act(said, work, act);
    if (isWord) this.#oracle.wordEnds(name);
    if (this.#busy.get(name) === process) this.#busy.delete(name);
  }

  async #happen(event: HomeEvent): Promise<void> {
    const chance = this.#chance;
    const site = this.#sites[chance.pick(HOME_NAMES)];
    if (!this.#isPossible(event, site)) return;
    this.#life.happens(event, site.name);
    switch (event) {
      case 'kill-site':
        site.kill();
        this.#life.later(1, 3_000, () => site.boot());
        break;
      case 'close-site':
        void this.#close(site);
        break;
      case 'cut-power':
        site.host.cutPower(chance);
        site.gone();
        this.#life.later(50, AWAY_MS_MAX, () => power(site));
        break;
      case 'partition':
        this.#calls.cut(HOMES.A, HOMES.B);
        this.#life.later(50, AWAY_MS_MAX, () => this.#calls.heal(HOMES.A, HOMES.B));
        break;
      case 'stall': {
        const { process } = site;
        this.#life.turns.hold(process!);
        this.#life.later(50, 20_000, () => this.#life.turns.letGo(process!, { slept: false }));
        break;
      }
      case 'end-guest':
        site.guests[0]!.guest.kill();
        break;
      case 'fault-disk':
        this.#breakDisk(site);
        break;
      case 'wall-clock':
        site.host.jumpWall(chance.pick([-1, 1]) * chance.pick([500, 3_600_000, 400 * 86_400_000]));
        break;
    }
    await settled();
  }

  #isPossible(event: HomeEvent, site: HomeSite): boolean {
    switch (event) {
      case 'kill-site':
      case 'stall':
        return site.process !== undefined;
      case 'close-site':
        return site.open !== undefined && !this.#closing.has(site);
      case 'cut-power':
        return site.host.isOn;
      case 'end-guest':
        return site.guests.length > 0;
      default:
        return true;
    }
  }

  async #close(site: HomeSite): Promise<void> {
    const about = { calls: this.#calls, closing: this.#closing, life: this.#life };
    if (await closeInOrder(site, about)) this.#restart(site);
  }

  /** Some call fails soon, once or until the disk is healed. */
  #breakDisk({ host: { faults } }: HomeSite): void {
    faults.heal();
    this.#life.later(50, AWAY_MS_MAX, () => faults.heal());
    this.#life.breakDisk(faults);
  }

  /** All faults end, and everything must come to rest. */
  async #comeToRest(): Promise<void> {
    this.#isCalm = true;
    this.#calls.weather = GOOD_CALLS;
    this.#calls.heal(HOMES.A, HOMES.B);
    for (const site of Object.values(this.#sites)) {
      site.host.faults.heal();
      if (site.process) this.#life.turns.letGo(site.process, { slept: false });
      power(site);
    }
    await this.#untilRest(() => this.#oracle.unrest());
    // Copies flow again: what is cut now the other site takes.
    const before = this.#oracle.acknowledged;
    const hasArrived = () => this.#oracle.acknowledged > before || this.#isReplicaOlder;
    await this.#untilRest(() => (hasArrived() ? this.#oracle.unrest() : ['no copy has arrived since then']));
    await this.#waitFor(this.#oracle.checkNothingLost());
  }

  #untilRest(unrestNow: () => string[]): Promise<void> {
    return this.#life.untilRest(REST_TURNS_MAX, () => this.#next(), unrestNow);
  }

  /** What takes turns itself. */
  async #waitFor(work: Promise<void>): Promise<void> {
    let isOver = false;
    const end = () => {
      isOver = true;
    };
    void work.then(end, end);
    while (!isOver) await this.#next();
    await work;
  }
}

/** Nothing of a made site differs from one run to the next. */
const { clock } = new SimProcess(new Turns(new SimRandom(1, 1)), 'set-up');

let made: Promise<Readonly<Record<HomeName, SimDisk>>> | undefined;

/** The disks of two sites: a machine at home at A and protected to B, which has one point of it. Made once, without faults. */
async function madeHomes(): Promise<Readonly<Record<HomeName, SimDisk>>> {
  made ??= makeHomes();
  const { A, B } = await made;
  return { A: A.copy(), B: B.copy() };
}

async function makeHomes(): Promise<Readonly<Record<HomeName, SimDisk>>> {
  const disks = { A: new SimDisk(), B: new SimDisk() };
  for (const name of HOME_NAMES) await new SimFiles(disks[name]).makeDirectory(DATA);
  const home = { siteId: HOMES.A, targetSiteId: HOMES.B, deviceName: DEVICE_NAME };
  const machine = await makeMachine(new SimFiles(disks.A), home);
  const files = new SimFiles(disks.B);
  const tools = { files, images: imagesOn(files), clock, log: silentLog, zones: new Zones() };
  const replicas = await Replicas.open({ ...tools, isSignedBySource: isSigned }, DATA);
  await machine.cut('crash');
  await machine.replicate(new DirectTarget({ siteId: HOMES.B, sourceSiteId: HOMES.A, replicas }));
  for (const name of HOME_NAMES) await new SimFiles(disks[name]).syncDirectory('/');
  return disks;
}
