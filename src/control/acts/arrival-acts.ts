import type { ArrivalRule, ArrivalRuleView } from '../../api/index.ts';
import type { Audit } from '../base/audit.ts';
import type { ArrivalRules } from '../drills/arrival-rules.ts';
import type { Arrivals } from '../drills/arrivals.ts';
import type { Inventory } from '../inventory/inventory.ts';

/** What a person says about points that arrive. */
export class ArrivalActs {
  readonly #o: {
    readonly rules: ArrivalRules;
    readonly arrivals: Arrivals;
    readonly inventory: Inventory;
    readonly audit: Audit;
  };

  constructor(o: { rules: ArrivalRules; arrivals: Arrivals; inventory: Inventory; audit: Audit }) {
    this.#o = o;
  }

  show(reference: string): ArrivalRuleView {
    this.#o.rules.checkRead();
    const { machineId } = this.#o.inventory.replica(reference).record;
    return { rule: this.#o.rules.of(machineId) ?? null };
  }

  /** The newest point that is here counts as one that arrives now. Without a rule nothing is done any more. */
  change(actor: string, reference: string, rule: ArrivalRule | null): Promise<ArrivalRuleView> {
    const { rules, arrivals, inventory, audit } = this.#o;
    const { machineId } = inventory.replica(reference).record;
    const details = { rule };
    return audit.acting({ actor, act: 'arrival.rule', subject: machineId, details }, async () => {
      await rules.change(machineId, rule ?? undefined);
      arrivals.ruleChanged(machineId);
      return { rule };
    });
  }
}
