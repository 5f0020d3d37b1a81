import { isFailure } from '../../lib/errors.ts';
import type { ProtectedMachine, RightAnswer, RightsTarget } from '../../replication/index.ts';
import { controlFailure } from '../errors.ts';

/** The machine that is taken back, as far as that needs it. */
interface TakenBack extends Pick<ProtectedMachine, 'running' | 'record'> {
  readonly right: Pick<ProtectedMachine['right'], 'tenure' | 'hear' | 'settle' | 'withdrawal'>;
  readonly targets: readonly { readonly siteId: string }[];
}

interface TakeBackTools {
  readonly ask: (siteId: string, ask: (rights: RightsTarget) => Promise<RightAnswer>) => Promise<RightAnswer>;
  /** Throws MACHINE_OUTDATED. */
  readonly checkNotOutdated: () => void;
}

/** The other site may have given up a claim that was not known here yet. */
const TRIES_MAX = 3;

/**
 * Takes back what this site has offered, or what another one has brought up and given up: that site promises, durably, to follow the claim
 * that this one makes for it; only then is the machine held here. Once more nothing changes. Throws PROTECTION_NOT_CEDED, MACHINE_TAKEN,
 * MACHINE_UNSETTLED, MACHINE_STILL_RUNS, MACHINE_OUTDATED, MACHINE_FORGOTTEN, and what keeps the other site from answering.
 */
export async function takeBack(machine: TakenBack, tools: TakeBackTools): Promise<void> {
  const { right } = machine;
  const { machineId, name } = machine.record;
  await right.settle();
  // That another site had brought it up this one may not have heard yet.
  if (right.tenure.state === 'holds') await hearOfOthers(machine, tools);
  for (let tries = 1; ; tries++) {
    const { withdrawal, siteId } = right.withdrawal();
    const isOffer = right.tenure.state === 'cedes';
    if (!isOffer) {
      tools.checkNotOutdated();
      checkHasEnded(machine);
    }
    const asking = tools.ask(siteId, (rights) => rights.withdraw(machineId, withdrawal));
    const answer = await asking.catch((error: unknown) => {
      throw isFailure(error, 'REPLICA_UNKNOWN') ? forgotten(machine, siteId) : error;
    });
    const { state } = await right.hear(answer.claim);
    if (state === 'holds') return;
    const hasGivenUp = answer.state === 'follows' && answer.claim.siteId === siteId;
    if (hasGivenUp && tries < TRIES_MAX) continue;
    const context = { machineId, siteId };
    if (answer.state === 'holds') {
      const said = isOffer ? 'was taken over by' : 'was brought up, and is held, by';
      throw controlFailure('MACHINE_TAKEN', `${name} ${said} site ${siteId}`, { context });
    }
    throw controlFailure('MACHINE_UNSETTLED', `site ${siteId} does not let go of ${name}`, { context });
  }
}

/**
 * Any of its targets may have brought the machine up: each is asked, and one that is silent hinders nothing if another knows of a higher
 * claim. Throws what keeps the first silent one from answering if none does.
 */
async function hearOfOthers({ record, right, targets }: TakenBack, { ask }: TakeBackTools): Promise<void> {
  const { claim: held } = right.tenure;
  const asked = targets.map(({ siteId }) => ask(siteId, (rights) => rights.claim(record.machineId, held)));
  const silent: unknown[] = [];
  for (const answer of await Promise.allSettled(asked)) {
    if (answer.status === 'fulfilled') await right.hear(answer.value.claim);
    // It has nothing that could have been brought up.
    else if (isFailure(answer.reason, 'REPLICA_UNKNOWN')) continue;
    else if (isFailure(answer.reason)) silent.push(answer.reason);
    else throw answer.reason;
  }
  if (right.tenure.state === 'holds' && silent.length > 0) throw silent[0];
}

/** A guest that was fenced is ended in the time that it gets for that, also if it may run again meanwhile. */
function checkHasEnded({ running, record: { name } }: TakenBack): void {
  if (running === undefined) return;
  throw controlFailure(
    'MACHINE_STILL_RUNS',
    `${name} is being ended here, because another site had brought it up`,
  );
}

/**
 * That a site knows nothing of a machine is no promise of it: its replica was removed there, or its files may only be missing while guests
 * run. A person has to look.
 */
function forgotten({ record: { machineId, name } }: TakenBack, siteId: string) {
  const said = `site ${siteId} has nothing of ${name} any more`;
  return controlFailure('MACHINE_FORGOTTEN', said, { context: { machineId, siteId } });
}
