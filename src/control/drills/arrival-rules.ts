import { join } from 'node:path';
import Type from 'typebox';
import { ArrivalRule, DrillPolicyShape } from '../../api/index.ts';
import type { FileSystem } from '../../lib/files.ts';
import { recordKind } from '../../lib/records.ts';
import type { AlertSink } from '../base/alerts.ts';
import { Stored } from '../base/stored.ts';
import type { DrillSettings } from './drill-settings.ts';

const Arrivals = Type.Object({
  rules: Type.Array(Type.Object({ machineId: Type.String(), rule: ArrivalRule })),
  /** What version 1 knew as tests of points that arrive: they become drills. */
  drills: Type.Optional(Type.Array(Type.Object({ machineId: Type.String(), policy: DrillPolicyShape }))),
});
type Arrivals = Type.Static<typeof Arrivals>;
const ARRIVALS = recordKind('arrivals', 2, Arrivals, (value) => ofVersion1(value as unknown as Arrivals1));

/** Version 1, in which a point that arrived could be tested as well. */
interface Arrivals1 {
  readonly rules: readonly {
    readonly machineId: string;
    readonly rule: {
      readonly copyTypes?: string[];
      readonly work: { readonly kind: string; readonly probes?: DrillPolicyShape['probes'] };
    };
  }[];
}

/** A rule of version 1 had no limit; a day is what a person gets who says nothing. */
const PROVE_WITHIN_MS = 86_400_000;

function ofVersion1({ rules }: Arrivals1): unknown {
  return {
    rules: rules.filter(({ rule }) => rule.work.kind !== 'test'),
    drills: rules
      .filter(({ rule }) => rule.work.kind === 'test')
      .map(({ machineId, rule: { copyTypes, work } }) => ({
        machineId,
        policy: {
          // Without types it was the newest of all points.
          ...(copyTypes ? { copyTypes } : { others: {} }),
          ...(work.probes ? { probes: work.probes } : {}),
          proveWithinMs: PROVE_WITHIN_MS,
        },
      })),
  };
}

/** `arrivals.json` of a site: how points that arrive are prepared, by machine. */
export class ArrivalRules {
  readonly #stored: Stored<Arrivals>;

  private constructor(stored: Stored<Arrivals>) {
    this.#stored = stored;
  }

  /** With `alerts` also where it cannot be read: nothing is prepared then. */
  static async open(files: FileSystem, dataDirectory: string, alerts?: AlertSink): Promise<ArrivalRules> {
    const path = join(dataDirectory, 'arrivals.json');
    return new ArrivalRules(await Stored.open(files, path, ARRIVALS, { rules: [] }, alerts && { alerts }));
  }

  /** Hands over what an earlier version knew as tests. May be repeated: a machine that has a drill policy keeps it. */
  async handOverTo(drills: DrillSettings): Promise<void> {
    // What cannot be read is handed over by a start that can.
    if (this.#stored.unread || drills.isUnread) return;
    for (const { machineId, policy } of this.#stored.value.drills ?? []) {
      if (drills.of(machineId).from !== 'machine') await drills.change(machineId, policy);
    }
    await this.#stored.change((before) => (before.drills ? { rules: before.rules } : before));
  }

  /** What people have said cannot be read. */
  get isUnread(): boolean {
    return this.#stored.unread !== undefined;
  }

  /** Throws why they cannot be read. */
  checkRead(): void {
    void this.#stored.said;
  }

  of(machineId: string): ArrivalRule | undefined {
    return this.#stored.value.rules.find((one) => one.machineId === machineId)?.rule;
  }

  get machineIds(): readonly string[] {
    return this.#stored.value.rules.map(({ machineId }) => machineId);
  }

  /** The machine has no replica here any more. */
  async forget(machineId: string): Promise<void> {
    if (!this.#stored.unread) await this.change(machineId, undefined);
  }

  /** Durable on return; without a rule nothing is done with points of this machine. */
  async change(machineId: string, rule: ArrivalRule | undefined): Promise<void> {
    await this.#stored.change((before) => {
      const others = before.rules.filter((one) => one.machineId !== machineId);
      if (!rule) return others.length === before.rules.length ? before : { ...before, rules: others };
      return { ...before, rules: [...others, { machineId, rule }] };
    });
  }
}
