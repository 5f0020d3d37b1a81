import type { PlanDocument, PlanFinding } from '../api/index.ts';
import { isFailure } from '../lib/errors.ts';
import { checkProbes } from '../probe/index.ts';
import { programsOf } from './hooks.ts';
import { isMachine, machinesOf } from './machines.ts';
import type { PlannedNic } from './networks.ts';
import { networksAt } from './networks.ts';
import { cycleIn, needsOf } from './order.ts';
import { changesAt, gateAnywhere, gatesAt } from './site-changes.ts';

/** What a site knows of a machine that a plan names. */
export interface KnownMachine {
  readonly nics: readonly PlannedNic[];
  readonly hasAgent: boolean;
  /** It has a point that can be brought up here, or runs here. */
  readonly isReady: boolean;
  /** So many machines of the site are called so, where it is more than one: nothing else of it is known then. */
  readonly namesakes?: number;
}

/** What is wrong with a plan by itself, with what its gates ask; pure. */
export function findingsOf(plan: PlanDocument): PlanFinding[] {
  const findings: PlanFinding[] = [];
  for (const [machine, planned] of Object.entries(plan.machines)) {
    if (!isMachine(machine, planned)) {
      findings.push(
        error(`«${machine}» is not a machine: its name, or what is said of it, has another form`, machine),
      );
      continue;
    }
    const { after = [], gates = [] } = planned;
    try {
      checkProbes(gates.map(gateAnywhere));
    } catch (failure) {
      if (!isFailure(failure, 'FAILOVER_PROBE_INVALID')) throw failure;
      findings.push(error(`a gate of ${machine}: ${failure.message}`, machine));
    }
    for (const other of after) {
      if (other === machine) findings.push(error(`${machine} waits for itself`, machine));
      else if (!Object.hasOwn(plan.machines, other)) {
        findings.push(error(`${machine} waits for ${other}, which is not in the plan`, machine));
      }
    }
  }
  const cycle = cycleIn(needsOf(plan));
  if (cycle && cycle.length > 1) {
    const said = `these wait for each other: ${[...cycle, cycle[0]].join(' → ')} (each for the next; also by their tiers)`;
    findings.push(error(said));
  }
  return findings;
}

/**
 * What would keep a plan from being carried out at a site, or surprise its owner; pure. `known` answers nothing for a machine that is not here,
 * `lackOf` why a program of the site could not be run.
 */
export function findingsAt(
  plan: PlanDocument,
  siteName: string,
  known: (machine: string) => KnownMachine | undefined,
  lackOf: (program: string) => string | undefined,
): PlanFinding[] {
  const findings: PlanFinding[] = programsOf(plan).flatMap(({ program, machine }) => {
    const lack = lackOf(program);
    return lack === undefined ? [] : [error(lack, machine)];
  });
  const networks = new Set<string>();
  for (const [machine, { gates, networks: own = {} }] of machinesOf(plan)) {
    const found = known(machine);
    if (!found) {
      findings.push(error(`this site has no machine ${machine}`, machine));
      continue;
    }
    if (found.namesakes !== undefined) {
      const said = `${found.namesakes} machines of this site are called ${machine}: the plan needs the id of the one that is meant`;
      findings.push(error(said, machine));
      continue;
    }
    if (!found.isReady)
      findings.push(error(`${machine} has no point here that could be brought up`, machine));
    for (const nicId of gatesAt(plan, machine, siteName).unknownNics) {
      findings.push(
        error(
          `a gate of ${machine} asks {${nicId}}, and nothing says what address that has at ${siteName}`,
          machine,
        ),
      );
    }
    const ids = found.nics.map(({ nicId }) => nicId);
    const changes = changesAt(plan, machine, siteName, false);
    if (changes?.addresses && !found.hasAgent) {
      findings.push(error(`${machine} has no guest agent that could set its addresses`, machine));
    }
    for (const nicId of Object.keys({ ...own, ...changes?.addresses })) {
      if (!ids.includes(nicId)) {
        findings.push(error(`${machine} has no NIC ${nicId}; it has: ${ids.join(', ') || 'none'}`, machine));
      }
    }
    for (const { network } of found.nics) networks.add(network);
    const connected = networksAt(plan, machine, found.nics, siteName);
    const left = found.nics.filter(({ nicId }) => !Object.hasOwn(connected, nicId)).map(({ nicId }) => nicId);
    if (left.length > 0) {
      findings.push(warning(`${machine}: nothing says what is connected here: ${left.join(', ')}`, machine));
    }
    if (gates?.length === 0 || (!gates && !found.hasAgent)) {
      const why = gates ? 'has no gates' : 'has no gates and no guest agent';
      findings.push(warning(`${machine} ${why}: it counts as up at once`, machine));
    }
  }
  for (const network of Object.keys(plan.networks ?? {})) {
    if (!networks.has(network))
      findings.push(warning(`no machine of the plan is in the network «${network}»`));
  }
  return findings;
}

function error(message: string, machine?: string): PlanFinding {
  return { severity: 'error', message, ...(machine === undefined ? {} : { machine }) };
}

function warning(message: string, machine?: string): PlanFinding {
  return { severity: 'warning', message, ...(machine === undefined ? {} : { machine }) };
}
