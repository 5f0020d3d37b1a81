import type { RehearsalView, RehearseRequest } from '../../api/index.ts';
import type { Clock } from '../../lib/clock.ts';
import { checkRehearsalTimes } from '../../plan/index.ts';
import type { Zones } from '../../recovery-point/index.ts';
import type { Audit } from '../base/audit.ts';
import type { PlanStore } from '../plans/plan-store.ts';
import type { RehearsalStore } from '../plans/rehearsal-store.ts';
import type { PlanRehearsals } from '../plans/rehearsals.ts';

interface RehearsalActsTools {
  readonly store: PlanStore;
  readonly rehearsals: RehearsalStore;
  readonly loop: PlanRehearsals;
  readonly zones: Zones;
  readonly audit: Audit;
  readonly clock: Clock;
}

const WITHIN_MS_DEFAULT = 6 * 3_600_000;

/** What a person does with rehearsals that a site begins by itself. */
export class RehearsalActs {
  readonly #o: RehearsalActsTools;

  constructor(o: RehearsalActsTools) {
    this.#o = o;
  }

  /** Throws why it cannot be read which there are, or which plans. */
  async list(): Promise<RehearsalView[]> {
    this.#checkRead();
    return this.#o.loop.views();
  }

  #checkRead(): void {
    this.#o.store.checkRead();
    this.#o.rehearsals.checkRead();
  }

  /** In the place of what was said before; durable on return. Throws PLAN_UNKNOWN, POLICY_TIME_INVALID, POLICY_ZONE_UNKNOWN, POLICY_NEVER. */
  async change(actor: string, plan: string, request: RehearseRequest): Promise<RehearsalView[]> {
    const { store, rehearsals, zones, audit, clock, loop } = this.#o;
    store.need(plan);
    const { times, withinMs = WITHIN_MS_DEFAULT } = request;
    if (times.kind === 'fixed') zones.check(times.zone);
    checkRehearsalTimes(times, clock.wallMs());
    await audit.acting({ actor, act: 'plan.rehearse', subject: plan, details: { times, withinMs } }, () =>
      rehearsals.put({ plan, times, withinMs, sinceMs: clock.wallMs() }),
    );
    loop.changed();
    return this.list();
  }

  /** None is begun any more; one that is under way goes on. Durable on return. Throws as `list`, before anything is done. */
  async end(actor: string, plan: string): Promise<RehearsalView[]> {
    const { rehearsals, audit, loop } = this.#o;
    // Which are left could not be answered, and no error may be the answer to what was done.
    this.#checkRead();
    await audit.acting({ actor, act: 'plan.rehearse', subject: plan, details: { times: null } }, () =>
      rehearsals.remove(plan),
    );
    loop.left(plan);
    loop.changed();
    return this.list();
  }
}
