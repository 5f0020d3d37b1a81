import type { TargetReplicationView } from '../../api/index.ts';
import { Mutex } from '../../lib/mutex.ts';
import type { Others, Replica } from '../../replica/index.ts';
import {
  Forwarding,
  type ForwardPolicy,
  type ForwardTools,
  type Origin,
  type ReplicationTarget,
} from '../../replication/index.ts';
import { failureOf } from '../base/alerts.ts';
import { runWorker } from '../base/worker.ts';
import { controlFailure } from '../errors.ts';
import { type SenderTools, type SentMachine, TargetSender } from '../machines/target-sender.ts';

interface ForwardsTools extends SenderTools {
  readonly forwarding: ForwardTools;
  /** The site that makes the points of a replica, as others are told of it; undefined while its key is not known. */
  readonly origin: (siteId: string) => Origin | undefined;
}

interface Open {
  readonly forwarding: Forwarding;
  readonly sender: TargetSender;
}

/** What one site gets of a replica, and how far it is. */
export interface ForwardReport {
  readonly policy: ForwardPolicy;
  readonly state: TargetReplicationView;
}

/**
 * Sends the points of the replicas here on to further sites, each in its own turn: as soon as they arrive, resumed after
 * whatever has broken a transfer off, and never given up before a person ends it.
 */
export class Forwards {
  readonly #tools: ForwardsTools;
  readonly #open = new Map<string, Open[]>();
  readonly #changing = new Mutex();

  private constructor(tools: ForwardsTools) {
    this.#tools = tools;
  }

  static async open(tools: ForwardsTools, replicas: readonly Replica[]): Promise<Forwards> {
    const forwards = new Forwards(tools);
    for (const replica of replicas) await forwards.take(replica);
    return forwards;
  }

  async close(): Promise<void> {
    await this.#changing.run(async () => {
      await Promise.all([...this.#open.values()].flat().map(({ sender }) => sender.stop()));
      this.#open.clear();
    });
  }

  /** Goes on with what was recorded of a replica that has been opened. A record that cannot be read hinders nothing else. */
  take(replica: Replica): Promise<void> {
    return this.#changing.run(async () => {
      const { machineId } = replica.record;
      const { alerts, forwarding } = this.#tools;
      try {
        const opened = await Forwarding.openAll(forwarding, replica);
        this.#open.set(
          machineId,
          opened.map((one) => this.#begin(one)),
        );
        alerts.clear(`forwards:${machineId}`);
      } catch (error) {
        alerts.raise(`forwards:${machineId}`, 'critical', failureOf(error), machineId);
      }
    });
  }

  #begin(forwarding: Forwarding): Open {
    const { siteId } = forwarding.policy;
    const sender = new TargetSender(this.#sent(forwarding), siteId, this.#tools, () => undefined);
    sender.start((work, signal) => {
      const { machineId } = forwarding.replica.record;
      const fields = () => ({ machine: forwarding.replica.record.machineName, siteId });
      const alert = `worker-forward:${machineId}:${siteId}`;
      const about = { alert, event: 'forwarding.worker-broke', fields, machineId };
      return runWorker(this.#tools, about, () => work(signal), signal);
    });
    return { forwarding, sender };
  }

  #sent(forwarding: Forwarding): SentMachine {
    const forward = (target: ReplicationTarget, signal?: AbortSignal) =>
      forwarding.forward(target, this.#originOf(forwarding.replica), signal);
    return {
      get record() {
        const { machineId, machineName: name } = forwarding.replica.record;
        return { machineId, name, protection: null };
      },
      cuts: [],
      get targets() {
        const { record, unsent, progress: sending } = forwarding;
        return [{ siteId: record.siteId, record, unsent, sending }];
      },
      replicate: forward,
    };
  }

  #originOf({ record: { sourceSiteId, machineName } }: Replica): Origin {
    const origin = this.#tools.origin(sourceSiteId);
    if (origin) return origin;
    const said = `the key of site ${sourceSiteId}, which signs the points of ${machineName}, is not known here`;
    throw controlFailure('ORIGIN_UNKNOWN', said, { context: { siteId: sourceSiteId } });
  }

  /** Begins to forward a replica to a site, or changes what that gets. Durable on return. */
  set(replica: Replica, siteId: string, policyOf: (before?: ForwardPolicy) => ForwardPolicy): Promise<void> {
    return this.#changing.run(async () => {
      const open = this.#of(replica).find(({ forwarding }) => forwarding.policy.siteId === siteId);
      if (open) {
        await open.forwarding.change(policyOf(open.forwarding.policy));
        open.sender.ring();
        open.sender.retry();
        return;
      }
      const forwarding = await Forwarding.begin(this.#tools.forwarding, replica, policyOf());
      this.#open.set(replica.record.machineId, [...this.#of(replica), this.#begin(forwarding)]);
    });
  }

  /** Forwards nothing more to a site, which keeps what it has. Throws FORWARD_UNKNOWN. */
  stop(replica: Replica, siteId: string): Promise<void> {
    return this.#changing.run(async () => {
      const all = this.#of(replica);
      const open = all.find(({ forwarding }) => forwarding.policy.siteId === siteId);
      const { machineId, machineName } = replica.record;
      if (!open) {
        const said = `${machineName} is not forwarded to site ${siteId}`;
        throw controlFailure('FORWARD_UNKNOWN', said, { context: { machineId, siteId } });
      }
      await open.sender.stop();
      open.sender.clearAlerts();
      const others = all.filter((one) => one !== open);
      try {
        await open.forwarding.end();
        this.#open.set(machineId, others);
      } catch (error) {
        this.#open.set(machineId, [...others, this.#begin(open.forwarding)]);
        throw error;
      }
    });
  }

  #of({ record }: Replica): readonly Open[] {
    return this.#open.get(record.machineId) ?? [];
  }

  /** The sites that a replica is forwarded to. */
  reports(replica: Replica): ForwardReport[] {
    return this.#of(replica).map(({ forwarding: { policy }, sender }) => ({
      policy,
      state: sender.report(false),
    }));
  }

  /** Points that retention leaves, because they are on their way. */
  reasons(replica: Replica): Others {
    const held = this.#of(replica).flatMap(({ forwarding }) => forwarding.heldPointId ?? []);
    return new Map(held.map((pointId) => [pointId, ['forwarding']]));
  }

  /** A point of this machine has been published here. */
  arrived(machineId: string): void {
    for (const { sender } of this.#open.get(machineId) ?? []) sender.ring();
  }

  /** A site answers that did not. */
  kick(siteId: string): void {
    for (const { sender } of [...this.#open.values()].flat()) {
      if (sender.siteId === siteId) sender.retry();
    }
  }

  /** The machines whose points go to a site. */
  namesTo(siteId: string): string[] {
    return [...this.#open.values()]
      .flat()
      .filter(({ sender }) => sender.siteId === siteId)
      .map(({ forwarding }) => forwarding.replica.record.machineName);
  }
}
