import { VoteRecords } from '../../../src/control/leases/lease-records.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { type Claim, compareClaims, type Tenure, Zones } from '../../../src/recovery-point/index.ts';
import { Replicas, tenureOfReplica } from '../../../src/replica/index.ts';
import { ProtectedMachine } from '../../../src/replication/index.ts';
import { AT_ONCE } from '../../support/actor.ts';
import { FakeHypervisor } from '../../support/fake-hypervisor.ts';
import { isSigned, simSigner } from '../signing.ts';
import { chooseCutMode } from '../sim-disk.ts';
import { SimFiles } from '../sim-files.ts';
import { SimRandom } from '../sim-random.ts';
import { SimProcess, Turns } from '../turns.ts';
import { Violation } from '../violation.ts';
import type { LeaseSite } from './lease-site.ts';
import { DATA, imagesOn, MACHINE_ID, machineLayout, type SiteName } from './made-sites.ts';
import type { AnsweredCall, AskedCall } from './sim-calls.ts';

/** A guard looks every half a second, and has a second to stop its guest: so long one may run after its host has slept. */
const AFTER_SLEEP_MS = 1_700;
/** Of answers that lend the machine once more, one in so many is looked at. */
const RENEWALS_LOOKED_AT = 12;

/** Everything that must hold at every turn, and what rest is. */
export class LeaseOracle {
  readonly #sites: Readonly<Record<SiteName, LeaseSite>>;
  readonly #chance: SimRandom;
  readonly #nowMs: () => number;
  /** Epochs that were held, and by whom. */
  readonly #held = new Map<number, string>();
  /** By a person's word, by whose claims two may run. */
  readonly #confirmed = new Set<string>();
  /** Claims that the witness has voted for. */
  readonly #voted = new Set<string>();
  #branchSeen: string | undefined;
  #homeSeen: object | undefined;
  /** How often what was promised was looked for after a power cut. */
  probes = 0;

  constructor(o: {
    readonly sites: Readonly<Record<SiteName, LeaseSite>>;
    readonly chance: SimRandom;
    readonly nowMs: () => number;
  }) {
    this.#sites = o.sites;
    this.#chance = o.chance;
    this.#nowMs = o.nowMs;
  }

  confirmed(claim: Claim): void {
    this.#confirmed.add(nameOf(claim));
  }

  /**
   * A failover that is begun again at a site that holds the machine by somebody's word gets a claim above its own, by that word. Whether
   * that is so.
   */
  begunAgain({ epoch, siteId }: Claim): boolean {
    const isConfirmed = this.#confirmed.has(nameOf({ epoch, siteId }));
    if (isConfirmed) this.confirmed({ epoch: epoch + 1, siteId });
    return isConfirmed;
  }

  /** Where the two sites that may run the machine stand, as far as their processes know. */
  get tenures(): { readonly P: Tenure | undefined; readonly R: Tenure | undefined } {
    const { P, R } = this.#sites;
    const replica = R.open?.replicas.get(MACHINE_ID);
    return {
      P: P.open?.machine?.right.tenure,
      R: replica && tenureOfReplica(replica.record, R.siteId),
    };
  }

  async check(): Promise<void> {
    this.#checkOneRuns();
    this.#checkEpochs();
    this.#checkFenced();
    await this.#checkStarts();
  }

  #checkOneRuns(): void {
    const { P, R } = this.#sites;
    const home = P.guest;
    const branch = R.guests.running;
    if (!home || home.isPaused || P.host.isAsleep || !branch || R.host.isAsleep) return;
    if (this.#nowMs() < P.host.wokeAtMs + AFTER_SLEEP_MS) return;
    const claims = [P.homeClaim!, branch.claim];
    if (claims.some((claim) => this.#confirmed.has(nameOf(claim)))) return;
    throw new Violation(`the machine runs at both sites: by ${claims.map(nameOf).join(' and ')}`);
  }

  #checkEpochs(): void {
    for (const tenure of Object.values(this.tenures)) {
      if (tenure?.state !== 'holds') continue;
      const { epoch, siteId } = tenure.claim;
      const before = this.#held.get(epoch) ?? siteId;
      this.#held.set(epoch, siteId);
      if (before === siteId) continue;
      const isConfirmed = [before, siteId].some((one) => this.#confirmed.has(nameOf({ epoch, siteId: one })));
      if (!isConfirmed) throw new Violation(`epoch ${epoch} is held by two sites`);
    }
  }

  /** Nobody loses the machine to a claim that its maker has only made. */
  #checkFenced(): void {
    const { P: home } = this.tenures;
    if (home?.state !== 'fenced' || home.claim.siteId !== this.#sites.R.siteId) return;
    const name = nameOf(home.claim);
    if (this.#voted.has(name) || this.#confirmed.has(name)) return;
    throw new Violation(`its home is fenced by ${name}, which nobody has voted for or confirmed`);
  }

  /** Who starts a guest holds the machine, also if the power goes at this very moment. */
  async #checkStarts(): Promise<void> {
    const { P, R } = this.#sites;
    const branch = R.guests.running;
    if (branch && branch.branchId !== this.#branchSeen) {
      const { claim } = await this.#durableReplica();
      if (compareClaims(claim, branch.claim) < 0)
        throw new Violation(
          `a guest runs by ${nameOf(branch.claim)}, and what is durable is ${nameOf(claim)}`,
        );
    }
    this.#branchSeen = branch?.branchId;
    const home = P.guest;
    if (home && home !== this.#homeSeen && P.homeClaim) {
      const { state, claim } = (await this.#durableHome()).right.tenure;
      const isHeld = state === 'holds' && claim.epoch >= P.homeClaim.epoch;
      if (!isHeld && compareClaims(claim, P.homeClaim) <= 0)
        throw new Violation(`the machine was started at home, which ${state} by ${nameOf(claim)}`);
    }
    this.#homeSeen = home;
  }

  /** Called before a question leaves its site: who has its machine lent would know after a power cut that it runs by leases. */
  async onAsk({ name, body }: AskedCall): Promise<void> {
    if (name !== 'lease.ask' || (body as { kind: string }).kind !== 'renew') return;
    if (this.#chance.below(RENEWALS_LOOKED_AT) > 0) return;
    if (!(await this.#durableHome()).record.lease)
      throw new Violation('the machine is to be lent, and after a power cut it runs by no leases');
  }

  /** Called before an answer leaves its site: what it promises is durable. */
  async onAnswer({ to, name, body, answer }: AnsweredCall): Promise<void> {
    const { claim, kind, withdrawal } = body as { claim: Claim; kind?: string; withdrawal?: Claim };
    const said = answer as { granted?: boolean; claim?: Claim };
    if (name === 'lease.ask' && said.granted) {
      if (kind === 'vote') this.#voted.add(nameOf(claim));
      if (kind === 'renew' && this.#chance.below(RENEWALS_LOOKED_AT) > 0) return;
      const record = await this.#durableVote(to);
      if (record && compareClaims(record.vote.entitled, claim) === 0) return;
      const there = record ? nameOf(record.vote.entitled) : 'nothing';
      throw new Violation(`${kind} ${nameOf(claim)} was granted, and after a power cut there is ${there}`);
    }
    if (name === 'lease.let-go') {
      const record = await this.#durableVote(to);
      if (record && compareClaims(record.vote.seen, claim) < 0)
        throw new Violation(`${nameOf(claim)} was let go, and that is not durable`);
    }
    if (name === 'right.withdraw' && said.claim && compareClaims(said.claim, withdrawal!) === 0) {
      const tenure = await this.#durableReplica();
      if (compareClaims(tenure.claim, withdrawal!) < 0)
        throw new Violation(`${nameOf(withdrawal!)} is followed, and that is not durable`);
    }
  }

  /** What a power cut at this instant would leave of a site's disk. */
  #afterPowerCut(name: SiteName): SimFiles {
    this.probes += 1;
    const disk = this.#sites[name].host.disk.copy();
    disk.crash(this.#chance, chooseCutMode(this.#chance));
    return new SimFiles(disk);
  }

  async #durableVote(siteId: string) {
    const site = Object.values(this.#sites).find((one) => one.siteId === siteId)!;
    return recordIn(this.#afterPowerCut(site.name));
  }

  /** As it is on the disk now. */
  #voteAt(name: SiteName) {
    return recordIn(new SimFiles(this.#sites[name].host.disk.copy()));
  }

  async #durableReplica(): Promise<Tenure> {
    const { R } = this.#sites;
    const files = this.#afterPowerCut('R');
    const replicas = await Replicas.open({ ...toolsOn(files), isSignedBySource: isSigned }, DATA);
    return tenureOfReplica(replicas.need(MACHINE_ID).record, R.siteId);
  }

  async #durableHome(): Promise<ProtectedMachine> {
    const { P } = this.#sites;
    const tools = toolsOn(this.#afterPowerCut('P'));
    const host = { machines: new Map(), start: () => Promise.reject(new Error('nothing starts here')) };
    const hypervisor = new FakeHypervisor({ host, actor: AT_ONCE });
    return ProtectedMachine.open(
      { ...tools, hypervisor, random: this.#chance, signer: simSigner, siteId: P.siteId },
      machineLayout(),
    );
  }

  /** What has not come to rest, if anything. */
  async unrest(isBusy: boolean): Promise<string[]> {
    const { P, R, W } = this.#sites;
    const found: string[] = [];
    const { P: home, R: recovery } = this.tenures;
    if (!P.open || !R.open || !W.open || !home || !recovery) return ['a site is not open'];
    if (isBusy) found.push('somebody waits for a failover');
    const [holder, other] = home.state === 'holds' ? [home, recovery] : [recovery, home];
    if (holder.state !== 'holds')
      found.push(`nobody holds the machine: ${textOf(home)}, ${textOf(recovery)}`);
    if (other.state === 'holds') found.push('both sites hold the machine');
    if (compareClaims(holder.claim, other.claim) !== 0)
      found.push(`the sites know of other claims: ${textOf(home)}, ${textOf(recovery)}`);
    const isHome = home.state === 'holds';
    const runs = { P: P.guest !== undefined && !P.guest.isPaused, R: R.guests.running !== undefined };
    if (runs.P !== isHome || runs.R !== !isHome) found.push(`it runs at ${JSON.stringify(runs)}`);
    found.push(...(await this.#untold()), ...(isHome ? this.#lending() : []));
    return found;
  }

  async #untold(): Promise<string[]> {
    const { R: recovery } = this.tenures;
    const found: string[] = [];
    const records = { P: await this.#voteAt('P'), R: await this.#voteAt('R') };
    // An end of leases that did not come to pass is told of nobody while they last.
    const isLeased = this.#sites.P.open?.machine?.record.lease !== undefined;
    for (const [name, record] of Object.entries(records))
      if (record?.seeking || ((record?.toTell || record?.toEnd) && !(name === 'P' && isLeased)))
        found.push(`${name} has something to tell`);
    if (recovery?.state !== 'holds' || !records.R) return found;
    const vote = (await this.#voteAt('W'))?.vote;
    if (!vote || vote.before || compareClaims(vote.entitled, recovery.claim) !== 0)
      found.push(`the witness does not know that ${nameOf(recovery.claim)} is held`);
    return found;
  }

  #lending(): string[] {
    const { P } = this.#sites;
    const { machine, leases, alerts } = P.open!;
    if (!machine!.record.lease) return [];
    const { lentMs = {}, guest } = leases.standing(MACHINE_ID) ?? {};
    const missing = Object.entries(lentMs).filter(([, ms]) => ms === 0);
    const found = missing.map(([siteId]) => `${siteId.at(-1)} lends nothing`);
    if (guest !== 'runs') found.push('the guard does not say that the guest runs');
    for (const key of alerts.keys()) if (key.startsWith('lease')) found.push(`alert ${key} stands`);
    return found;
  }
}

async function recordIn(files: SimFiles) {
  const alerts = {
    raise: (key: string) => {
      throw new Violation(`${key} cannot be read`);
    },
    clear: () => undefined,
  };
  return (await VoteRecords.open({ files, alerts }, DATA)).get(MACHINE_ID);
}

function toolsOn(files: SimFiles) {
  const { clock } = new SimProcess(new Turns(new SimRandom(1, 1)), 'probe');
  return { files, images: imagesOn(files), clock, log: silentLog, zones: new Zones() };
}

function nameOf({ epoch, siteId }: Claim): string {
  return `${epoch}${siteId.at(-1)}`;
}

function textOf({ state, claim }: Tenure): string {
  return `${state} ${nameOf(claim)}`;
}
