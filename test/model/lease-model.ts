import {
  afterAsking,
  afterGivingUp,
  afterHearing,
  afterSeizing,
  afterSettingApart,
  afterWithdrawal,
  type Claim,
  compareClaims,
  hasGivenUp,
  type LeaseAsk,
  type Tenure,
  type Vote,
  withdrawalOf,
} from '../../src/recovery-point/index.ts';
import { claimsViolation, claimText, isOneEpoch } from './claims.ts';
import type { Model, Step } from './explorer.ts';
import { accidents } from './lease-accidents.ts';
import {
  type LeaseBudget,
  type LeaseBug,
  type Lender,
  type Link,
  letting,
  NAMES,
  type Site,
  type SiteName,
  spend,
  type Trio,
  withSite,
} from './lease-states.ts';

const NOTHING_LENT = { other: { here: false, there: false }, W: { here: false, there: false } } as const;

/**
 * Two sites and a witness, and a machine that runs by leases. Each step is one durable act, one call (whose answer may be lost), one
 * accident, or that time passes. Of time only this is known: what a holder counts as lent to it ends before its lender counts it as
 * ended, because the one counts from before it asked and the other from after it answered.
 */
export function leaseModel(budget: LeaseBudget, bug?: LeaseBug): Model<Trio> {
  const first: Claim = { epoch: 1, siteId: 'P' };
  const vote: Vote = { entitled: first, seen: first, term: 'leased' };
  const common = { isUp: true, disks: '', branches: [], lent: NOTHING_LENT, sought: 0 };
  return {
    initial: {
      sites: {
        P: { ...common, tenure: { state: 'holds', claim: first }, isLeased: true, runs: false },
        R: { ...common, tenure: { state: 'follows', claim: first }, isLeased: false, runs: false, vote },
      },
      witness: { vote, isUp: true },
      ...{ down: [], letGo: [], written: '', acknowledged: '', confirmed: [], left: budget },
    },
    next: (state) => [
      ...NAMES.flatMap((name) => [...new Acts(state, name, bug).all()]),
      ...accidents(state, bug),
    ],
    violation,
    isGood,
    sights: { 'both sites hold one epoch': ({ sites }) => isOneEpoch(sites.P.tenure, sites.R.tenure) },
  };
}

function violation({ sites: { P, R }, written, confirmed }: Trio): string | undefined {
  for (const [name, { tenure, runs, isLeased, lent }] of [
    ['P', P],
    ['R', R],
  ] as const) {
    if (tenure.state === 'holds' && tenure.claim.siteId !== name) return `${name} holds another site’s claim`;
    if (runs && isLeased && tenure.state === 'holds' && !lent.other.here && !lent.W.here)
      return `${name} runs without a lease`;
  }
  const wrong = claimsViolation(P, R, confirmed);
  if (wrong !== undefined) return wrong;
  const kept = [P, R].flatMap(({ disks, branches }) => [disks, ...branches]).join('');
  for (const letter of written) if (!kept.includes(letter)) return `the write ${letter} is gone`;
  return undefined;
}

function isGood({ sites: { P, R }, witness, down, letGo }: Trio): boolean {
  if (down.length > 0 || !P.isUp || !R.isUp || !witness.isUp) return false;
  const [holder, other] = P.tenure.state === 'holds' ? [P, R] : [R, P];
  return (
    holder.tenure.state === 'holds' &&
    holder.runs &&
    other.tenure.state === 'follows' &&
    other.seeking === undefined &&
    letGo.length === 0 &&
    compareClaims(other.tenure.claim, holder.tenure.claim) === 0 &&
    other.disks === holder.disks &&
    // Else the witness is worth nothing on the day when one of the others fails.
    witness.vote?.before === undefined &&
    compareClaims(witness.vote!.entitled, holder.tenure.claim) === 0
  );
}

/** What one site may do. */
class Acts {
  readonly #state: Trio;
  readonly #name: SiteName;
  readonly #bug: LeaseBug | undefined;

  constructor(state: Trio, name: SiteName, bug: LeaseBug | undefined) {
    this.#state = state;
    this.#name = name;
    this.#bug = bug;
  }

  get #site(): Site {
    return this.#state.sites[this.#name];
  }

  get #otherName(): SiteName {
    return this.#name === 'P' ? 'R' : 'P';
  }

  get #other(): Site {
    return this.#state.sites[this.#otherName];
  }

  *all(): Generator<Step<Trio>> {
    yield* this.#timePasses();
    const { written, left } = this.#state;
    if (this.#site.runs && left.writes > 0) {
      const letter = 'abcd'[written.length]!;
      const after = this.#become({ disks: this.#site.disks + letter });
      yield this.#step('the guest writes', { ...spend(after, 'writes'), written: written + letter }, false);
    }
    if (!this.#site.isUp) return;
    yield* this.#runs();
    yield* this.#replicates();
    yield* this.#renews();
    yield* this.#seeks();
    yield* this.#speaks();
    yield* this.#undoes();
  }

  *#timePasses(): Generator<Step<Trio>> {
    for (const lender of ['other', 'W'] as const) {
      const { here, there } = this.#site.lent[lender];
      if (here) {
        const lent = { ...this.#site.lent, [lender]: { here: false, there } };
        const isOver = this.#site.isLeased && !lent.other.here && !lent.W.here;
        // The guard stops the guest, whether or not the site's process lives.
        const runs = this.#site.runs && !(isOver && this.#isGuarded);
        yield this.#step(`what ${lender} has lent it runs out`, this.#become({ lent, runs }));
      } else if (there) {
        const lent = { ...this.#site.lent, [lender]: { here, there: false } };
        // Also of a claim that counts no more: the guard knows of no claims, and has stopped the guest before.
        const isRunning = Object.values(lent).some((one) => one.here || one.there);
        const runs = this.#site.runs && (!this.#site.isLeased || isRunning || !this.#isGuarded);
        yield this.#step(`${lender} counts its lease as over`, this.#become({ lent, runs }));
      }
    }
  }

  get #isGuarded(): boolean {
    return this.#site.isUp || this.#bug !== 'guard ends with the process';
  }

  *#runs(): Generator<Step<Trio>> {
    const { tenure, runs, isLeased, lent, branches, disks } = this.#site;
    const hasLease = lent.other.here || lent.W.here || this.#bug === 'lease checked after the start';
    if (!runs && tenure.state === 'holds' && (!isLeased || hasLease))
      yield this.#step('starts or continues the machine', this.#become({ runs: true }));
    if (runs && tenure.state !== 'holds') yield this.#step('ends the machine', this.#become({ runs: false }));
    if (tenure.state === 'fenced' && !runs) {
      const apart = { tenure: afterSettingApart(tenure), branches: [...branches, disks], isLeased: false };
      yield this.#step('sets apart what it wrote', this.#become(apart));
    }
    // Who was brought up for good goes back to leases: it counts one as lent before it asks for the first.
    if (tenure.state === 'holds' && !isLeased && this.#other.tenure.state === 'follows' && this.#isUsed()) {
      const back = { isLeased: true, lent: { ...lent, W: { here: true, there: lent.W.there } } };
      yield this.#step('goes back to leases', this.#become(back), false);
    }
  }

  /** Whether the witness knows that this site holds the machine. */
  #isUsed(): boolean {
    const { vote } = this.#state.witness;
    return (
      vote !== undefined &&
      vote.before === undefined &&
      compareClaims(vote.entitled, this.#site.tenure.claim) === 0
    );
  }

  *#replicates(): Generator<Step<Trio>> {
    const { tenure, disks } = this.#site;
    if (tenure.state !== 'holds' || !this.#reaches('PR') || !this.#other.isUp) return;
    const isKnown = compareClaims(this.#other.tenure.claim, tenure.claim) === 0;
    if (this.#other.tenure.state !== 'follows' || !isKnown || this.#other.disks === disks) return;
    const acknowledged = [...new Set(this.#state.acknowledged + disks)].sort().join('');
    yield this.#step('replicates', { ...withSite(this.#state, this.#otherName, { disks }), acknowledged });
  }

  *#renews(): Generator<Step<Trio>> {
    const { tenure, isLeased, lent } = this.#site;
    if (tenure.state !== 'holds' || !isLeased) return;
    const ask: LeaseAsk = { claim: tenure.claim, kind: 'renew' };
    for (const lender of ['other', 'W'] as const) {
      if (lent[lender].here && lent[lender].there) continue;
      if (lender === 'other') {
        const { seeking, tenure: theirs } = this.#other;
        if (theirs.state !== 'follows' || compareClaims(theirs.claim, tenure.claim) > 0) continue;
        if (seeking && this.#bug !== 'lent while it seeks') continue;
      }
      yield* this.#asks(lender, ask, (state) =>
        withSite(state, this.#name, {
          lent: { ...state.sites[this.#name].lent, [lender]: { here: true, there: true } },
        }),
      );
    }
  }

  *#seeks(): Generator<Step<Trio>> {
    const { tenure, seeking } = this.#site;
    const { left } = this.#state;
    const above = afterSeizing(tenure, this.#name)?.claim;
    if (!seeking && tenure.state === 'follows' && above && left.seeks > 0) {
      const isSame = this.#bug === 'asks again by the same claim';
      const epoch = isSame ? above.epoch : Math.max(above.epoch, this.#site.sought + 1);
      const anew = { seeking: { ...above, epoch }, sought: epoch };
      yield this.#step('begins to ask for the right', spend(this.#become(anew), 'seeks'), false);
    }
    yield* this.#beginsAgain();
    if (!seeking) return;
    const isHeld = tenure.state === 'holds' && compareClaims(tenure.claim, seeking) === 0;
    if (isHeld && this.#bug !== 'lets go of what it holds') {
      const { seeking: _, granted: __, ...rest } = this.#site;
      yield this.#step('knows that it holds what it asked for', this.#replace(rest));
      return;
    }
    // A holder that is heard of is above what was sought, or was not asked for; one of the same epoch is neither.
    const { granted } = this.#site;
    const isOverAnother =
      (granted !== undefined && compareClaims(granted, tenure.claim) !== 0) ||
      seeking.epoch <= tenure.claim.epoch;
    const isMissed = isOverAnother && this.#bug !== 'a vote used over another holder';
    if (tenure.state !== 'follows' || isMissed || compareClaims(seeking, tenure.claim) <= 0) {
      const { seeking: _, granted: __, ...rest } = this.#site;
      yield this.#step('lets go of what it asked for', letting(this.#replace(rest), seeking));
      return;
    }
    if (!this.#other.lent.other.there && !granted) {
      yield* this.#asks('W', { kind: 'vote', claim: seeking, over: tenure.claim }, (state) =>
        withSite(state, this.#name, { granted: tenure.claim }),
      );
    }
    if (granted) {
      // What it asked by is forgotten by another act: the process may end in between.
      const { granted: _, ...rest } = this.#site;
      const holds: Site = { ...rest, tenure: { state: 'holds', claim: seeking }, isLeased: false };
      yield this.#step('hears that it has the vote, and holds', this.#replace(holds));
    }
    const { seeking: _, granted: __, ...rest } = this.#site;
    yield this.#step('gives up asking', letting(this.#replace(rest), seeking), false);
  }

  /** A failover that is begun again by votes where the machine is held asks nobody, and goes by the claim that it has. */
  *#beginsAgain(): Generator<Step<Trio>> {
    const { tenure, runs, isLeased } = this.#site;
    if (tenure.state !== 'holds' || runs || isLeased || this.#state.left.seeks === 0) return;
    if (this.#bug !== 'a claim raised without asking') return;
    const { epoch } = tenure.claim;
    const raised: Tenure = { state: 'holds', claim: { epoch: epoch + 1, siteId: this.#name } };
    yield this.#step('fails over again by votes', spend(this.#become({ tenure: raised }), 'seeks'), false);
  }

  *#speaks(): Generator<Step<Trio>> {
    const { tenure } = this.#site;
    const other = this.#other;
    if (this.#reaches('PR') && other.isUp) {
      const heard = afterHearing(other.tenure, this.#otherName, tenure.claim);
      if (heard !== other.tenure)
        yield this.#step(
          'tells the other its claim',
          withSite(this.#state, this.#otherName, { tenure: heard }),
        );
    }
    if (tenure.state === 'holds' && this.#state.left.withdrawals > 0 && this.#reaches('PR') && other.isUp) {
      const isKnown =
        other.tenure.state === 'follows' && compareClaims(other.tenure.claim, tenure.claim) === 0;
      const claim = { epoch: tenure.claim.epoch + 2, siteId: this.#name };
      const after = withSite(
        this.#become({ tenure: { state: 'holds', claim }, runs: false }),
        this.#otherName,
        {
          tenure: { state: 'follows', claim },
        },
      );
      if (isKnown)
        yield this.#step('offers the machine, and takes it back', spend(after, 'withdrawals'), false);
    }
    const isToTell = tenure.state === 'holds' && !this.#site.isLeased && !this.#isUsed();
    if (isToTell) yield* this.#asks('W', { claim: tenure.claim, kind: 'hold' }, (state) => state);
    const seizing = this.#seized();
    if (seizing && this.#state.left.seizures > 0) {
      const seized = spend(this.#become({ tenure: seizing, isLeased: false }), 'seizures');
      const confirmed = [...this.#state.confirmed, claimText(seizing.claim)].sort();
      yield this.#step('seizes, confirmed by somebody', { ...seized, confirmed }, false);
    }
  }

  /** Also by a holder whose branch has ended, and that is told to begin again. */
  #seized(): Tenure | undefined {
    const { tenure, runs, isLeased } = this.#site;
    const isAgain = tenure.state === 'holds' && !runs && !isLeased;
    const seizing = afterSeizing(isAgain ? { state: 'follows', claim: tenure.claim } : tenure, this.#name);
    if (!seizing || this.#bug !== 'epoch not raised when seizing') return seizing;
    return { ...seizing, claim: { ...seizing.claim, epoch: tenure.claim.epoch } };
  }

  /** Gives up what was brought up, and asks for what the other has given up, or promised: the machine runs by leases again where it did. */
  *#undoes(): Generator<Step<Trio>> {
    const { tenure, runs, isLeased, branches, disks } = this.#site;
    const other = this.#other;
    const givenUp = afterGivingUp(tenure);
    const isStill = !runs || this.#bug === 'given up while its guest runs';
    if (givenUp && !isLeased && isStill && this.#state.left.undoings > 0) {
      const kept = branches.includes(disks) ? branches : [...branches, disks];
      const after = this.#become({ tenure: givenUp, branches: kept });
      yield this.#step('gives it up', spend(after, 'undoings'), false);
    }
    const withdrawal = withdrawalOf(tenure, this.#name);
    const isPromised = other.tenure.claim.siteId === this.#name;
    const isToBeHad = hasGivenUp(other.tenure, this.#otherName) || isPromised;
    if (!withdrawal || runs || !isToBeHad || !this.#reaches('PR') || !other.isUp) return;
    const promised = afterWithdrawal(other.tenure, this.#otherName, withdrawal);
    const there = withSite(this.#state, this.#otherName, { tenure: promised });
    const heard = afterHearing(tenure, this.#name, promised.claim);
    const isBack = heard.state === 'holds';
    // Its terms have stood in its record all the time.
    const back = { tenure: heard, isLeased: isBack ? this.#name === 'P' : isLeased };
    yield this.#step('asks for it back', withSite(there, this.#name, back));
    if (this.#state.left.lostAnswers > 0)
      yield this.#step('asks for it back, and the answer is lost', spend(there, 'lostAnswers'), false);
  }

  /** A call to a lender: it may be granted, or refused, and its answer may be lost. */
  *#asks(lender: Lender, ask: LeaseAsk, granted: (state: Trio) => Trio): Generator<Step<Trio>> {
    const isWitness = lender === 'W';
    const link = !isWitness ? 'PR' : this.#name === 'P' ? 'PW' : 'RW';
    const who = isWitness ? this.#state.witness : this.#other;
    if (!this.#reaches(link) || !who.isUp) return;
    const isLent = this.#isLentByThem(lender) && this.#bug !== 'voted while lent';
    const isSpent = who.vote !== undefined && compareClaims(ask.claim, who.vote.seen) <= 0;
    const isEntitled = who.vote !== undefined && compareClaims(ask.claim, who.vote.entitled) === 0;
    if (this.#bug === 'spent for its holder' && ask.kind === 'renew' && isSpent && !isEntitled) return;
    const { vote, answer } = afterAsking(who.vote, ask, isLent);
    let after: Trio = isWitness
      ? { ...this.#state, witness: { ...this.#state.witness, vote } }
      : withSite(this.#state, this.#otherName, { vote });
    if (ask.kind === 'renew' && answer.granted) {
      const { lent } = after.sites[this.#name];
      after = withSite(after, this.#name, {
        lent: { ...lent, [lender]: { here: lent[lender].here, there: true } },
      });
    }
    const what = `${ask.kind} ${ask.claim.epoch}${ask.claim.siteId} at ${isWitness ? 'the witness' : 'the other'}`;
    if (!answer.granted) {
      const { entitled, seen, isHeld, why } = answer;
      const higher = { epoch: seen.epoch + 1, siteId: this.#name };
      if (why === 'spent')
        yield this.#step(`${what}: spent`, this.#become({ seeking: higher, sought: higher.epoch }));
      const { seeking: _, ...rest } = this.#site;
      if (why === 'superseded' && ask.kind === 'vote')
        yield this.#step(`${what}: another holds it, and it asks no more`, this.#replace(rest));
      if (!isHeld) return;
      const heard = afterHearing(this.#site.tenure, this.#name, entitled);
      if (heard !== this.#site.tenure)
        yield this.#step(`${what}: hears of ${entitled.epoch}`, this.#become({ tenure: heard }));
      return;
    }
    yield this.#step(`${what}: granted`, granted(after));
    if (this.#state.left.lostAnswers > 0)
      yield this.#step(`${what}: granted, and the answer is lost`, spend(after, 'lostAnswers'), false);
  }

  /** Whether a lender counts a lease as running that is not this site’s. */
  #isLentByThem(lender: Lender): boolean {
    if (lender === 'W') return this.#other.lent.W.there;
    return false;
  }

  #reaches(link: Link): boolean {
    return !this.#state.down.includes(link);
  }

  #become(change: Partial<Site>): Trio {
    return withSite(this.#state, this.#name, change);
  }

  #replace(site: Site): Trio {
    return { ...this.#state, sites: { ...this.#state.sites, [this.#name]: site } };
  }

  #step(what: string, state: Trio, isHelp = true): Step<Trio> {
    return { name: `${this.#name}: ${what}`, state, isHelp };
  }
}
