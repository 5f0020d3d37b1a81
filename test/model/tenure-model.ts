import {
  afterCeding,
  afterGivingUp,
  afterHearing,
  afterSeizing,
  afterSettingApart,
  afterTaking,
  afterWithdrawal,
  type Claim,
  compareClaims,
  hasGivenUp,
  mayRun,
  type Tenure,
  withdrawalOf,
} from '../../src/recovery-point/index.ts';
import { claimsViolation, claimText, isOneEpoch } from './claims.ts';
import type { Model, Step } from './explorer.ts';

/**
 * Two sites, a machine, and everything that may befall them: writes, copies, hand-overs, withdrawals, undoings, seizures by people who may
 * be wrong, messages lost, late and doubled, partitions, kills of a site process beside whose end the guest runs on, losses of
 * power. Each step is one durable act of one site, or one message, or one accident.
 */
export interface Site {
  readonly tenure: Tenure;
  /** Its guest runs; also while its process does not. */
  readonly runs: boolean;
  readonly isUp: boolean;
  /** What its disks hold: a letter for each write. */
  readonly disks: string;
  /** What was set apart. */
  readonly branches: readonly string[];
  /** What it runs or would run: a branch upon its replica, or a machine that is at home there. */
  readonly home: Home;
}

/** A claim: the branch that runs by it is being adopted. The replica is marked, and the machine is not recorded yet. */
type Home = 'branch' | 'machine' | Claim;

interface Message {
  readonly kind: 'offer' | 'claim' | 'withdraw';
  readonly to: SiteName;
  readonly claim: Claim;
}

type SiteName = 'P' | 'R';

export interface Sites {
  readonly sites: Readonly<Record<SiteName, Site>>;
  readonly isPartitioned: boolean;
  readonly messages: readonly Message[];
  /** All writes that were made, and those of them that the other site has acknowledged. */
  readonly written: string;
  readonly acknowledged: string;
  /** Claims that were made with somebody's confirmation, such as 2R. */
  readonly confirmed: readonly string[];
  readonly left: Budget;
}

/** How often something may happen in all. */
export interface Budget {
  readonly writes: number;
  readonly kills: number;
  readonly partitions: number;
  readonly seizures: number;
  readonly cessions: number;
  readonly withdrawals: number;
  readonly undoings: number;
  readonly adoptions: number;
  readonly doubled: number;
}

/** Mistakes that the exploration must find. */
export type PlantedBug =
  | 'checked after the start'
  | 'ceded before it was verified'
  | 'branch deleted'
  | 'withdrawn unasked'
  | 'given up while its guest runs'
  | 'given up, and its branch deleted'
  | 'asked back without an answer'
  | 'promised while it holds'
  | 'a follower says nothing'
  | 'epoch not raised when seizing'
  | 'of one epoch whoever hears gives way'
  | 'of one epoch nobody gives way'
  | 'undone though it is at home'
  | 'ceded while it is adopted';

const NAMES = ['P', 'R'] as const;
const LETTERS = 'abcdefgh';
const MESSAGES_MAX = 2;

export function tenureModel(budget: Budget, bug?: PlantedBug): Model<Sites> {
  const first: Claim = { epoch: 1, siteId: 'P' };
  const common = { isUp: true, disks: '', branches: [] };
  return {
    initial: {
      sites: {
        P: { ...common, tenure: { state: 'holds', claim: first }, runs: true, home: 'machine' },
        R: { ...common, tenure: { state: 'follows', claim: first }, runs: false, home: 'branch' },
      },
      ...{ isPartitioned: false, messages: [], written: '', acknowledged: '', confirmed: [], left: budget },
    },
    next: (state) => [
      ...NAMES.flatMap((name) => [...actsOf(state, name, bug), ...accidentsOf(state, name)]),
      ...network(state, bug),
    ],
    violation,
    isGood,
    sights: {
      'both sites hold one epoch': ({ sites }) => isOneEpoch(sites.P.tenure, sites.R.tenure),
      'what had been adopted gives way': ({ sites }) =>
        Object.values(sites).some(({ home, tenure, branches }) => {
          return home === 'machine' && tenure.state === 'follows' && branches.length > 0;
        }),
      'R is at home': ({ sites: { R } }) => R.home === 'machine' && R.tenure.state === 'holds',
    },
  };
}

function violation({ sites, written, acknowledged, confirmed }: Sites): string | undefined {
  const { P, R } = sites;
  for (const [name, { tenure, runs, home }] of Object.entries(sites)) {
    if (tenure.state === 'holds' && tenure.claim.siteId !== name) return `${name} holds another site’s claim`;
    if (runs && tenure.state !== 'holds' && tenure.state !== 'fenced')
      return `${name} runs the machine though it ${tenure.state}`;
    if (home === 'machine' && hasGivenUp(tenure, name)) return `${name} has given up what is at home there`;
  }
  const wrong = claimsViolation(P, R, confirmed);
  if (wrong !== undefined) return wrong;
  const kept = [P, R].flatMap(({ disks, branches }) => [disks, ...branches]).join('');
  for (const letter of acknowledged)
    if (!kept.includes(letter)) return `the acknowledged write ${letter} is gone`;
  for (const letter of written) if (!kept.includes(letter)) return `the write ${letter} is gone`;
  return undefined;
}

/** One site runs the machine, and the other has all of it. */
function isGood({ sites: { P, R }, isPartitioned }: Sites): boolean {
  if (isPartitioned || !P.isUp || !R.isUp) return false;
  const [holder, other] = P.tenure.state === 'holds' ? [P, R] : [R, P];
  return (
    holder.tenure.state === 'holds' &&
    holder.runs &&
    other.tenure.state === 'follows' &&
    compareClaims(other.tenure.claim, holder.tenure.claim) === 0 &&
    other.disks === holder.disks
  );
}

function* actsOf(state: Sites, name: SiteName, bug?: PlantedBug): Generator<Step<Sites>> {
  const site = state.sites[name];
  const otherName = name === 'P' ? 'R' : 'P';
  const other = state.sites[otherName];
  const { tenure, runs } = site;
  const { left } = state;
  const help = (what: string, next: Sites): Step<Sites> => ({
    name: `${name}: ${what}`,
    state: next,
    isHelp: true,
  });
  const byPeople = (what: string, next: Sites): Step<Sites> => ({ ...help(what, next), isHelp: false });
  const become = (change: Partial<Site>, base = state) => withSite(base, name, change);
  const reaches = !state.isPartitioned && other.isUp;

  if (runs && left.writes > 0) {
    const letter = LETTERS[state.written.length]!;
    const written = become({ disks: site.disks + letter });
    yield byPeople('the guest writes', { ...spend(written, 'writes'), written: state.written + letter });
  }
  if (!site.isUp) return;
  if (!runs && (mayRun(tenure) || (bug === 'checked after the start' && tenure.state === 'follows')))
    yield help('starts the machine', become({ runs: true }));
  if (runs) yield help('ends the machine', become({ runs: false }));

  if (tenure.state === 'holds' && reaches && other.tenure.state === 'follows') {
    const isKnown = compareClaims(other.tenure.claim, tenure.claim) === 0;
    if (isKnown && other.disks !== site.disks) {
      // What it has of an older machine stays as it is: from here on its replica speaks.
      const there = withSite(state, otherName, { disks: site.disks, home: 'branch' });
      const acknowledged = [...new Set(state.acknowledged + site.disks)].sort().join('');
      yield help('replicates', { ...there, acknowledged });
    }
    const isVerified = other.disks === site.disks || bug === 'ceded before it was verified';
    const ceding = afterCeding(tenure, otherName);
    // A branch on its way to a machine is not ceded: the machine would hold by the claim that was looked at before.
    const isSettled = typeof site.home === 'string' || bug === 'ceded while it is adopted';
    if (!runs && isKnown && isVerified && isSettled && left.cessions > 0 && ceding)
      yield byPeople('cedes', spend(become({ tenure: ceding }), 'cessions'));
  }
  if (tenure.state === 'cedes') {
    yield* sent(state, { kind: 'offer', to: otherName, claim: tenure.offer }, (next) => help('offers', next));
  } else if (tenure.state !== 'follows' || bug !== 'a follower says nothing') {
    yield* sent(state, { kind: 'claim', to: otherName, claim: tenure.claim }, (next) =>
      help('tells its claim', next),
    );
  }
  yield* undoings(state, name, bug);
  const seizing = seized(site, name, bug);
  if (seizing && left.seizures > 0) {
    const after = spend(become({ tenure: seizing }), 'seizures');
    const confirmed = [...state.confirmed, claimText(seizing.claim)].sort();
    yield byPeople('seizes, confirmed by somebody', { ...after, confirmed });
  }
  // What is being adopted is left to the machine that it becomes.
  if (tenure.state === 'fenced' && !runs && typeof site.home === 'string') {
    const branches = bug === 'branch deleted' ? site.branches : [...site.branches, site.disks];
    yield help('sets apart what it wrote', become({ tenure: afterSettingApart(tenure), branches }));
  }
  yield* adoption(state, name);
}

/** By the word of somebody: also of a holder whose branch has ended, and that is told to begin again, or of a home that was fenced (`vm unprotect`). */
function seized({ tenure, runs, home }: Site, name: SiteName, bug?: PlantedBug): Tenure | undefined {
  const isHome = home === 'machine';
  const isAgain = tenure.state === 'holds' && !runs && home === 'branch';
  const isFencedHome = tenure.state === 'fenced' && isHome;
  const from: Tenure = isAgain || isFencedHome ? { state: 'follows', claim: tenure.claim } : tenure;
  const seizing = afterSeizing(from, name);
  if (!seizing || bug !== 'epoch not raised when seizing') return seizing;
  return { ...seizing, claim: { ...seizing.claim, epoch: tenure.claim.epoch } };
}

/** What was brought up becomes the machine itself, in two durable steps; a process that is killed between them has not done it. */
function* adoption(state: Sites, name: SiteName): Generator<Step<Sites>> {
  const { tenure, home } = state.sites[name];
  if (home === 'branch' && tenure.state === 'holds' && state.left.adoptions > 0) {
    const marked = withSite(spend(state, 'adoptions'), name, { home: tenure.claim });
    yield { name: `${name}: marks its replica: adopted`, state: marked, isHelp: false };
  }
  if (typeof home === 'string') return;
  // The machine holds by the claim that was looked at with the mark, and hears what the replica has heard since.
  const holds: Tenure = { state: 'holds', claim: home };
  const change = { home: 'machine', tenure: afterHearing(holds, name, tenure.claim) } as const;
  yield { name: `${name}: records the machine`, state: withSite(state, name, change), isHelp: true };
}

/** Gives up what it holds, and asks for what it has offered, or what was given up. */
function* undoings(state: Sites, name: SiteName, bug?: PlantedBug): Generator<Step<Sites>> {
  const { tenure, runs, branches, disks, home } = state.sites[name];
  const otherName = name === 'P' ? 'R' : 'P';
  const by = (isHelp: boolean, what: string, next: Sites): Step<Sites> => ({
    name: `${name}: ${what}`,
    state: next,
    isHelp,
  });
  const givenUp = afterGivingUp(tenure);
  const isStill = !runs || bug === 'given up while its guest runs';
  const isBranch = home === 'branch' || (home === 'machine' && bug === 'undone though it is at home');
  if (givenUp && isStill && isBranch && state.left.undoings > 0) {
    const isKept = branches.includes(disks) || bug === 'given up, and its branch deleted';
    const change = { tenure: givenUp, branches: isKept ? branches : [...branches, disks] };
    yield by(false, 'gives it up', withSite(spend(state, 'undoings'), name, change));
  }
  // A branch on its way to a machine asks for nothing.
  const withdrawal = typeof home === 'string' ? withdrawalOf(tenure, name) : undefined;
  if (!withdrawal) return;
  const isUnasked = bug === (tenure.state === 'cedes' ? 'withdrawn unasked' : 'asked back without an answer');
  if (isUnasked) {
    yield by(
      false,
      'takes it back unasked',
      withSite(state, name, { tenure: { state: 'holds', claim: withdrawal } }),
    );
    return;
  }
  const message: Message = { kind: 'withdraw', to: otherName, claim: withdrawal };
  const there = state.sites[otherName].tenure;
  const isPromised = there.claim.siteId === name && compareClaims(there.claim, tenure.claim) > 0;
  const isToBeHad = hasGivenUp(there, otherName) || (there.state === 'follows' && isPromised);
  // Whoever wants what is to be had asks again and again; people ask when it is of no use as well.
  if (isToBeHad && tenure.state !== 'cedes')
    yield* sent(state, message, (next) => by(true, 'asks for it back', next));
  else if (state.left.withdrawals > 0)
    yield* sent(spend(state, 'withdrawals'), message, (next) => by(false, 'asks for it back', next));
}

function* accidentsOf(state: Sites, name: SiteName): Generator<Step<Sites>> {
  const { isUp, runs, home } = state.sites[name];
  if (!isUp) {
    // Without a record of the machine the mark goes: the branch is what it was.
    const up = { isUp: true, home: typeof home === 'string' ? home : ('branch' as const) };
    yield { name: `${name}: its process starts`, state: withSite(state, name, up), isHelp: true };
    return;
  }
  if (state.left.kills === 0) return;
  const killed = spend(state, 'kills');
  yield {
    name: `${name}: its process is killed`,
    state: withSite(killed, name, { isUp: false }),
    isHelp: false,
  };
  if (runs) {
    const dark = withSite(killed, name, { isUp: false, runs: false });
    yield { name: `${name}: it loses its power`, state: dark, isHelp: false };
  }
}

function* network(state: Sites, bug?: PlantedBug): Generator<Step<Sites>> {
  if (state.isPartitioned)
    yield { name: 'the partition ends', state: { ...state, isPartitioned: false }, isHelp: true };
  else if (state.left.partitions > 0) {
    const cut = { ...spend(state, 'partitions'), isPartitioned: true };
    yield { name: 'a partition', state: cut, isHelp: false };
  }
  for (const [index, message] of state.messages.entries()) {
    const without = { ...state, messages: state.messages.toSpliced(index, 1) };
    const about = `${message.kind} ${message.claim.epoch}${message.claim.siteId}`;
    // Losing one is no help of its own; it makes room, as time does.
    yield { name: `${about} is lost`, state: without, isHelp: true };
    if (state.isPartitioned || !state.sites[message.to].isUp) continue;
    yield { name: `${message.to} gets ${about}`, state: received(without, message, bug), isHelp: true };
    if (state.left.doubled > 0)
      yield {
        name: `${message.to} gets ${about}, not for the last time`,
        state: received(spend(state, 'doubled'), message, bug),
        isHelp: false,
      };
  }
}

function received(state: Sites, { kind, to, claim }: Message, bug?: PlantedBug): Sites {
  const { tenure } = state.sites[to];
  if (kind === 'offer') {
    const taking = afterTaking(tenure, to, claim);
    const home = tenure.state === 'follows' ? 'branch' : state.sites[to].home;
    return taking ? withSite(state, to, { tenure: taking, home }) : state;
  }
  const promising = bug === 'promised while it holds' ? (afterGivingUp(tenure) ?? tenure) : tenure;
  const after = kind === 'withdraw' ? afterWithdrawal(promising, to, claim) : heard(tenure, to, claim, bug);
  return withSite(state, to, { tenure: after });
}

function heard(tenure: Tenure, to: SiteName, claim: Claim, bug?: PlantedBug): Tenure {
  const isOneEpochOfTwo = tenure.claim.epoch === claim.epoch && tenure.claim.siteId !== claim.siteId;
  if (tenure.state === 'holds' && isOneEpochOfTwo) {
    if (bug === 'of one epoch nobody gives way') return tenure;
    if (bug === 'of one epoch whoever hears gives way') return { state: 'fenced', claim, lost: tenure.claim };
  }
  return afterHearing(tenure, to, claim);
}

function* sent(state: Sites, message: Message, step: (next: Sites) => Step<Sites>): Generator<Step<Sites>> {
  const key = JSON.stringify(message);
  const isThere = state.messages.some((one) => JSON.stringify(one) === key);
  if (isThere || state.messages.length >= MESSAGES_MAX) return;
  const messages = [...state.messages, message].sort((a, b) =>
    JSON.stringify(a) < JSON.stringify(b) ? -1 : 1,
  );
  yield step({ ...state, messages });
}

function withSite(state: Sites, name: SiteName, change: Partial<Site>): Sites {
  return { ...state, sites: { ...state.sites, [name]: { ...state.sites[name], ...change } } };
}

function spend(state: Sites, what: keyof Budget): Sites {
  return { ...state, left: { ...state.left, [what]: state.left[what] - 1 } };
}
