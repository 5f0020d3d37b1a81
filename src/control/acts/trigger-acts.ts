import type { CreateTriggerRequest, TriggerView } from '../../api/index.ts';
import type { Audit } from '../base/audit.ts';
import type { Inventory } from '../inventory/inventory.ts';
import type { Machines } from '../machines/machines.ts';
import type { StoredTrigger, TriggerTokens } from '../machines/trigger-tokens.ts';

const USE = 'trigger.use';

/** What an operator does with triggers, and what can be done with one. */
export class TriggerActs {
  readonly #o: {
    readonly tokens: TriggerTokens;
    readonly machines: Machines;
    readonly inventory: Inventory;
    readonly audit: Audit;
  };

  constructor(o: { tokens: TriggerTokens; machines: Machines; inventory: Inventory; audit: Audit }) {
    this.#o = o;
  }

  /** Throws COPY_TYPE_UNKNOWN, POLICY_KEEPS_NOTHING, PROTECTION_NOT_PROTECTED: a trigger that could do nothing is not made. */
  create(
    actor: string,
    reference: string,
    request: CreateTriggerRequest,
  ): Promise<{ trigger: TriggerView; token: string }> {
    const { tokens, machines, inventory, audit } = this.#o;
    const machine = inventory.home(reference);
    const { machineId } = machine.record;
    const act = { actor, act: 'trigger.create', subject: machineId, details: request };
    return audit.acting(act, async () => {
      machines.checkCopies(machine, request.copyType);
      const { trigger, token } = await tokens.create({ machineId, ...request });
      return { trigger: this.#view(trigger), token };
    });
  }

  list(): TriggerView[] {
    const lastUses = this.#o.audit.lastDone(USE);
    return this.#o.tokens.list.map((trigger) => this.#view(trigger, lastUses));
  }

  /** Its token is good for nothing from now on. Throws TRIGGER_TOKEN_UNKNOWN. */
  revoke(actor: string, triggerId: string): Promise<TriggerView> {
    const { tokens, audit } = this.#o;
    const trigger = tokens.need(triggerId);
    const details = { triggerId };
    return audit.acting({ actor, act: 'trigger.revoke', subject: trigger.machineId, details }, async () => {
      await tokens.remove((one) => one.triggerId === triggerId);
      return this.#view(trigger);
    });
  }

  /** Who it is that shows this token for this trigger; undefined if it is not its token. */
  actorOf(triggerId: string, token: string): string | undefined {
    return this.#o.tokens.isShown(triggerId, token) ? actorOf(triggerId) : undefined;
  }

  /**
   * One copy is due, of the type and the machine that the trigger is for, as soon as it may be made. Throws TRIGGER_TOO_OFTEN,
   * COPY_TYPE_UNKNOWN, PROTECTION_NOT_PROTECTED.
   */
  use(actor: string, triggerId: string): Promise<{ copyTypes: string[] }> {
    const { tokens, machines, inventory, audit } = this.#o;
    const { machineId, copyType } = tokens.need(triggerId);
    tokens.count(triggerId);
    const act = { actor, act: USE, subject: machineId, details: { triggerId, copyType } };
    return audit.acting(act, async () => {
      machines.loopOf(inventory.home(machineId)).ask(copyType);
      return { copyTypes: [copyType] };
    });
  }

  #view(trigger: StoredTrigger, lastUses?: ReadonlyMap<string, number>): TriggerView {
    const { tokenDigest: _secret, ...told } = trigger;
    const machine = this.#o.inventory.named(trigger.machineId);
    const lastUsedAtMs = lastUses?.get(actorOf(trigger.triggerId));
    return {
      ...told,
      ...(machine === undefined ? {} : { machine }),
      ...(lastUsedAtMs === undefined ? {} : { lastUsedAtMs }),
    };
  }
}

function actorOf(triggerId: string): string {
  return `trigger:${triggerId}`;
}
