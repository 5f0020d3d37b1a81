import type { StartCheckView } from '../../api/index.ts';
import { checkStart, whyNotStarted } from '../../failover/index.ts';
import type { Hypervisor, StartFinding } from '../../hypervisor/index.ts';
import { canonicalJson, type Json } from '../../lib/canonical-json.ts';
import type { Clock } from '../../lib/clock.ts';
import { isFailure, messageOf } from '../../lib/errors.ts';
import type { Log } from '../../lib/log.ts';
import type { Replica } from '../../replica/index.ts';
import type { ProtectedMachine } from '../../replication/index.ts';
import type { AlertSink } from '../base/alerts.ts';
import { type Finding, failed, ok, warning } from '../base/finding.ts';

/** A host changes seldom, and points come every few seconds. */
const LOOK_AGAIN_MS = 10 * 60_000;

type Started = Pick<Hypervisor, 'offer'>;

/** Tells people as soon as a point has arrived whose machine would not start here, and not on the day it is needed. */
export class StartChecks {
  readonly #o: {
    readonly hypervisor: Started;
    readonly alerts: AlertSink;
    readonly clock: Clock;
    readonly log: Log;
  };
  /** By machine: what was found to start, and when. */
  readonly #good = new Map<string, { readonly configuration: string; readonly atMs: number }>();

  constructor(o: { hypervisor: Started; alerts: AlertSink; clock: Clock; log: Log }) {
    this.#o = o;
  }

  /** Looks at the newest point of a replica. Never rejects. */
  async look(replica: Replica): Promise<void> {
    const { hypervisor, alerts, clock, log } = this.#o;
    const { machineId, machineName } = replica.record;
    const statement = replica.newest?.statement;
    if (!statement) return;
    const configuration = canonicalJson(statement.configuration as Json);
    const good = this.#good.get(machineId);
    const nowMs = clock.monotonicMs();
    if (good?.configuration === configuration && nowMs - good.atMs < LOOK_AGAIN_MS) return;
    this.#good.delete(machineId);
    try {
      const findings = await checkStart(hypervisor, statement.configuration);
      const failure = whyNotStarted(machineName, statement.sequence, findings);
      if (failure) {
        alerts.raise(keyOf(machineId), 'critical', failure, machineId);
      } else {
        alerts.clear(keyOf(machineId));
        this.#good.set(machineId, { configuration, atMs: nowMs });
      }
    } catch (error) {
      if (!isFailure(error)) throw error;
      // Nothing was learned of the machine; `doctor` tells what is wrong with this host.
      log.warn('start.not-checked', { machine: machineName, reason: messageOf(error) });
    }
  }

  /** Why the machine of the newest point would not start here; what cannot be looked at hinders nobody. Never rejects. */
  async hindrance({ newest, record: { machineName } }: Replica): Promise<string | undefined> {
    if (!newest) return undefined;
    const { sequence, configuration } = newest.statement;
    try {
      const findings = await checkStart(this.#o.hypervisor, configuration);
      return whyNotStarted(machineName, sequence, findings)?.message;
    } catch (error) {
      if (!isFailure(error)) throw error;
      this.#o.log.warn('start.not-checked', { machine: machineName, reason: messageOf(error) });
      return undefined;
    }
  }

  forget(machineId: string): void {
    this.#good.delete(machineId);
    this.#o.alerts.clear(keyOf(machineId));
  }

  /** Throws REPLICA_UNKNOWN. */
  async check(replica: Replica, pointId: string): Promise<StartCheckView> {
    const { sequence, configuration } = replica.point(pointId).statement;
    const findings = await checkStart(this.#o.hypervisor, configuration);
    const wouldStart = !findings.some(({ prevents }) => prevents);
    return { pointId, sequence, wouldStart, findings: findings.map((finding) => ({ ...finding })) };
  }
}

/** What may have to be started at this site: replicas, as their newest points say, and machines that it starts itself. */
export function toStart(
  machines: readonly { readonly machine: Pick<ProtectedMachine, 'record'> }[],
  replicas: readonly Replica[],
): { readonly name: string; readonly configuration: unknown }[] {
  return [
    ...machines.flatMap(({ machine: { record } }) => (record.kind === 'managed' ? [record] : [])),
    ...replicas.flatMap(({ record, newest }) =>
      newest && record.adopted === undefined
        ? [{ name: record.machineName, configuration: newest.statement.configuration }]
        : [],
    ),
  ].map(({ name, configuration }) => ({ name, configuration }));
}

/** What `doctor` says of the machines that may have to start here. */
export async function startFinding(hypervisor: Started, configuration: unknown): Promise<Finding> {
  return asFinding(await checkStart(hypervisor, configuration));
}

function asFinding(findings: readonly StartFinding[]): Finding {
  if (findings.length === 0) return ok('it would start here');
  const because = findings.map(({ found }) => found).join('; ');
  const remedy = [...new Set(findings.map((finding) => finding.remedy))].join(' ');
  return findings.some(({ prevents }) => prevents)
    ? failed(`it would not start here, because ${because}`, remedy)
    : warning(`it would start here and not be the same: ${because}`, remedy);
}

function keyOf(machineId: string): string {
  return `start:${machineId}`;
}
