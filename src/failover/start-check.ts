import {
  checkMachineConfiguration,
  type HostOffer,
  type Hypervisor,
  type Medium,
  mediaOf,
  type StartFinding,
  startFindings,
} from '../hypervisor/index.ts';
import { type Failure, isFailure } from '../lib/errors.ts';
import type { Trunk } from '../replica/index.ts';
import { checkConnections, type NetworksHere } from './connections.ts';
import { failoverFailure } from './errors.ts';
import { checkReaddressable } from './nic-checks.ts';

/** What a machine as a point describes it would find at this host. Throws what the hypervisor does. */
export async function checkStart(
  hypervisor: Pick<Hypervisor, 'offer'>,
  configuration: unknown,
): Promise<readonly StartFinding[]> {
  return startFindings(configuration, await hypervisor.offer(mediaIn([configuration])));
}

/** The media of machines as points describe them; what is wrong with a description is found later. */
function mediaIn(described: readonly unknown[]): Medium[] {
  return described.flatMap((one) => {
    try {
      return mediaOf(checkMachineConfiguration(one));
    } catch (error) {
      if (isFailure(error, 'MACHINE_CONFIGURATION_INVALID')) return [];
      throw error;
    }
  });
}

/** Undefined if the machine would start. */
export function whyNotStarted(
  machineName: string,
  sequence: number,
  findings: readonly StartFinding[],
): Failure | undefined {
  const preventing = findings.filter(({ prevents }) => prevents);
  if (preventing.length === 0) return undefined;
  const because = preventing.map(({ found }) => found).join('; ');
  const said = `point ${sequence} of ${machineName} would not start here, because ${because}`;
  return failoverFailure('FAILOVER_WOULD_NOT_START', said, {
    context: { codes: preventing.map(({ code }) => code).join(', ') },
    hint: [...new Set(preventing.map(({ remedy }) => remedy))].join(' '),
  });
}

export interface StartCheck {
  /** Points whose machines would not start. */
  readonly passedOver: ReadonlySet<string>;
  readonly warnings: readonly string[];
}

/** What a machine gets in the place of its own. */
export interface GivenInstead {
  readonly memoryBytes?: number | undefined;
  readonly cpus?: number | undefined;
  /** By NIC id. */
  readonly addresses?: Readonly<Record<string, unknown>> | undefined;
}

/**
 * Which of the points that may be tried would not start here. Throws FAILOVER_WOULD_NOT_START if all would not: a failover that
 * cannot succeed takes nothing from the other site. Throws as `checkReaddressable` does.
 */
export async function startable(
  hypervisor: Pick<Hypervisor, 'offer'>,
  replica: Trunk,
  points: readonly { readonly pointId: string }[],
  { memoryBytes, cpus, addresses = {} }: GivenInstead = {},
): Promise<StartCheck> {
  const statements = points.map(({ pointId }) => replica.point(pointId).statement);
  checkReaddressable(
    addresses,
    statements.map(({ configuration }) => configuration),
  );
  let offer: HostOffer;
  try {
    offer = await hypervisor.offer(mediaIn(statements.map(({ configuration }) => configuration)));
  } catch (error) {
    if (!isFailure(error)) throw error;
    // What cannot be looked at hinders nobody: whether it starts is seen when it is started.
    const said = `it could not be looked at whether ${replica.record.machineName} would start here: ${error.message}`;
    return { passedOver: new Set(), warnings: [said] };
  }
  const passedOver = new Map<string, Failure>();
  const warnings: string[] = [];
  for (const { pointId, sequence, configuration } of statements) {
    const limited = {
      ...(configuration as object),
      ...(memoryBytes === undefined ? {} : { memoryBytes }),
      ...(cpus === undefined ? {} : { cpus }),
    };
    const findings = startFindings(limited, offer);
    const failure = whyNotStarted(replica.record.machineName, sequence, findings);
    if (failure) passedOver.set(pointId, failure);
    warnings.push(...(failure ? [failure.message] : findings.map(({ found }) => found)));
  }
  const [first] = passedOver.values();
  if (first && passedOver.size === points.length) throw first;
  return { passedOver: new Set(passedOver.keys()), warnings: [...new Set(warnings)] };
}

/** What is to be tried, and where its NICs are to go. */
export type AskedAhead = Omit<Parameters<typeof checkConnections>[1], 'configurations'> & {
  readonly points: readonly { readonly pointId: string }[];
  readonly given?: GivenInstead | undefined;
};

/** Of what may be tried, what would start, and with its NICs where they are to go; see `checkConnections`, `startable`. */
export async function checkAhead(
  hypervisor: Pick<Hypervisor, 'offer'>,
  networksHere: NetworksHere,
  { points, given, ...asked }: AskedAhead,
): Promise<StartCheck> {
  const { replica } = asked;
  const configurations = points.map(({ pointId }) => replica.point(pointId).statement.configuration);
  const warnings = await checkConnections(networksHere, { ...asked, configurations });
  const check = await startable(hypervisor, replica, points, given);
  return { ...check, warnings: [...warnings, ...check.warnings] };
}
