import { afterLettingGo } from '../../src/recovery-point/index.ts';
import type { Step } from './explorer.ts';
import {
  type LeaseBug,
  type Lender,
  NAMES,
  type SiteName,
  spend,
  type Trio,
  withSite,
} from './lease-states.ts';

/** What befalls the sites, the witness and their links by nobody's doing, and its end. */
export function* accidents(state: Trio, bug: LeaseBug | undefined): Generator<Step<Trio>> {
  const { sites, witness, down, left } = state;
  for (const name of NAMES) {
    const { isUp, runs } = sites[name];
    const otherName = name === 'P' ? 'R' : 'P';
    if (!isUp) {
      yield {
        name: `${name}: its process starts`,
        state: withSite(state, name, { isUp: true }),
        isHelp: true,
      };
      continue;
    }
    if (left.kills === 0) continue;
    const { granted: _, ...kept } = sites[name];
    const dropped = { ...state, sites: { ...sites, [name]: kept } };
    const killed = forgetting(spend(dropped, 'kills'), otherName, 'other', bug);
    const what = { isUp: false };
    yield { name: `${name}: its process is killed`, state: withSite(killed, name, what), isHelp: false };
    if (runs)
      yield {
        name: `${name}: it loses its power`,
        state: withSite(killed, name, { ...what, runs: false }),
        isHelp: false,
      };
  }
  if (!witness.isUp)
    yield {
      name: 'the witness starts',
      state: { ...state, witness: { ...witness, isUp: true } },
      isHelp: true,
    };
  else if (left.kills > 0) {
    let killed: Trio = { ...spend(state, 'kills'), witness: { ...witness, isUp: false } };
    for (const name of NAMES) killed = forgetting(killed, name, 'W', bug);
    yield { name: 'the witness is killed', state: killed, isHelp: false };
  }
  for (const [index, claim] of state.letGo.entries()) {
    const link = claim.siteId === 'P' ? 'PW' : 'RW';
    if (!witness.isUp || down.includes(link) || !witness.vote) continue;
    const heard = { ...witness, vote: afterLettingGo(witness.vote, claim) };
    const after = { ...state, witness: heard, letGo: state.letGo.toSpliced(index, 1) };
    yield {
      name: `the witness hears that ${claim.epoch}${claim.siteId} is let go`,
      state: after,
      isHelp: true,
    };
  }
  for (const link of ['PR', 'PW', 'RW'] as const) {
    if (down.includes(link)) {
      const healed = { ...state, down: down.filter((one) => one !== link) };
      yield { name: `${link} heals`, state: healed, isHelp: true };
    } else if (left.partitions > 0) {
      const cut = { ...spend(state, 'partitions'), down: [...down, link].sort() };
      yield { name: `${link} breaks`, state: cut, isHelp: false };
    }
  }
}

/** What a lender knew of a lease to `name` ends with its process; one that starts waits as if it had lent just before. */
function forgetting(state: Trio, name: SiteName, lender: Lender, bug: LeaseBug | undefined): Trio {
  const { lent } = state.sites[name];
  const { vote } = lender === 'W' ? state.witness : state.sites[name === 'P' ? 'R' : 'P'];
  const isLeased = vote?.term === 'leased' && vote.entitled.siteId === name;
  const there = bug === 'lender forgets with its process' ? false : isLeased;
  return withSite(state, name, { lent: { ...lent, [lender]: { here: lent[lender].here, there } } });
}
