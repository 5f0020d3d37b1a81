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
}

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
  /** Epochs that were seized with somebody's confirmation. */
  readonly confirmed: readonly number[];
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
  | 'a follower says nothing';

const NAMES = ['P', 'R'] as const;
const LETTERS = 'abcdefgh';
const MESSAGES_MAX = 2;

export function tenureModel(budget: Budget, bug?: PlantedBug): Model<Sites> {
  const first: Claim = { epoch: 1, siteId: 'P' };
  const common = { isUp: true, disks: '', branches: [] };
  return {
    initial: {
      sites: {
        P: { ...common, tenure: { state: 'holds', claim: first }, runs: true },
        R: { ...common, tenure: { state: 'follows', claim: first }, runs: false },
      },
      ...{ isPartitioned: false, messages: [], written: '', acknowledged: '', confirmed: [], left: budget },
    },
    next: (state) => [
      ...NAMES.flatMap((name) => [...actsOf(state, name, bug), ...accidentsOf(state, name)]),
      ...network(state, bug),
    ],
    violation,
    isGood,
  };
}

function violation({ sites, written, acknowledged, confirmed }: Sites): string | undefined {
  const { P, R } = sites;
  for (const [name, { tenure, runs }] of Object.entries(sites)) {
    if (tenure.state === 'holds' && tenure.claim.siteId !== name) return `${name} holds another site’s claim`;
    if (runs && tenure.state !== 'holds' && tenure.state !== 'fenced')
      return `${name} runs the machine though it ${tenure.state}`;
  }
  if (
    P.tenure.state === 'holds' &&
    R.tenure.state === 'holds' &&
    compareClaims(P.tenure.claim, R.tenure.claim) === 0
  )
    return 'both sites hold one claim';
  if (P.runs && R.runs) {
    const higher = Math.max(P.tenure.claim.epoch, R.tenure.claim.epoch);
    if (!confirmed.includes(higher)) return 'both sites run the machine, and nobody has confirmed anything';
  }
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
      const there = withSite(state, otherName, { disks: site.disks });
      const acknowledged = [...new Set(state.acknowledged + site.disks)].sort().join('');
      yield help('replicates', { ...there, acknowledged });
    }
    const isVerified = other.disks === site.disks || bug === 'ceded before it was verified';
    const ceding = afterCeding(tenure, otherName);
    if (!runs && isKnown && isVerified && left.cessions > 0 && ceding)
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
  const seizing = afterSeizing(tenure, name);
  if (seizing && left.seizures > 0) {
    const seized = spend(become({ tenure: seizing }), 'seizures');
    const confirmed = [...state.confirmed, seizing.claim.epoch].sort();
    yield byPeople('seizes, confirmed by somebody', { ...seized, confirmed });
  }
  if (tenure.state === 'fenced' && !runs) {
    const branches = bug === 'branch deleted' ? site.branches : [...site.branches, site.disks];
    yield help('sets apart what it wrote', become({ tenure: afterSettingApart(tenure), branches }));
  }
}

/** Gives up what it holds, and asks for what it has offered, or what was given up. */
function* undoings(state: Sites, name: SiteName, bug?: PlantedBug): Generator<Step<Sites>> {
  const { tenure, runs, branches, disks } = state.sites[name];
  const otherName = name === 'P' ? 'R' : 'P';
  const by = (isHelp: boolean, what: string, next: Sites): Step<Sites> => ({
    name: `${name}: ${what}`,
    state: next,
    isHelp,
  });
  const givenUp = afterGivingUp(tenure);
  const isStill = !runs || bug === 'given up while its guest runs';
  if (givenUp && isStill && state.left.undoings > 0) {
    const isKept = branches.includes(disks) || bug === 'given up, and its branch deleted';
    const change = { tenure: givenUp, branches: isKept ? branches : [...branches, disks] };
    yield by(false, 'gives it up', withSite(spend(state, 'undoings'), name, change));
  }
  const withdrawal = withdrawalOf(tenure, name);
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
  const { isUp, runs } = state.sites[name];
  if (!isUp) {
    yield { name: `${name}: its process starts`, state: withSite(state, name, { isUp: true }), isHelp: true };
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
    return taking ? withSite(state, to, { tenure: taking }) : state;
  }
  const promising = bug === 'promised while it holds' ? (afterGivingUp(tenure) ?? tenure) : tenure;
  const after = kind === 'withdraw' ? afterWithdrawal(promising, to, claim) : afterHearing(tenure, to, claim);
  return withSite(state, to, { tenure: after });
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
