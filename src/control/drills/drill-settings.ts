import { join } from 'node:path';
import Type from 'typebox';
import {
  type DrillBudgetRequest,
  DrillBudgetShape,
  DrillPolicyShape,
  type DrillPolicyView,
} from '../../api/index.ts';
import type { FileSystem } from '../../lib/files.ts';
import { recordKind } from '../../lib/records.ts';
import type { AlertSink } from '../base/alerts.ts';
import { Stored } from '../base/stored.ts';

const Settings = Type.Object({
  budget: DrillBudgetShape,
  /** No drill of any machine begins by itself. */
  isPaused: Type.Boolean(),
  /** Machines of which none does. */
  paused: Type.Array(Type.String()),
  /** For machines that have none of their own. */
  site: Type.Optional(DrillPolicyShape),
  /** null: none is drilled, whatever holds for the others. */
  machines: Type.Array(
    Type.Object({ machineId: Type.String(), policy: Type.Union([DrillPolicyShape, Type.Null()]) }),
  ),
});
type Settings = Type.Static<typeof Settings>;
const DRILLS = recordKind('drills', 1, Settings);

/** One guest at a time, and no more than a small host has left. */
const INITIAL: Settings = {
  budget: { memoryBytes: 2 * 2 ** 30, atOnce: 1, quiet: [] },
  isPaused: false,
  paused: [],
  machines: [],
};

/** `drills.json` of a site: which points are drilled, and what all drills may take together. Every change is durable on return. */
export class DrillSettings {
  readonly #stored: Stored<Settings>;

  private constructor(stored: Stored<Settings>) {
    this.#stored = stored;
  }

  /** With `alerts` also where it cannot be read: nothing is drilled then. */
  static async open(files: FileSystem, dataDirectory: string, alerts?: AlertSink): Promise<DrillSettings> {
    const path = join(dataDirectory, 'drills.json');
    return new DrillSettings(await Stored.open(files, path, DRILLS, INITIAL, alerts && { alerts }));
  }

  /** What people have said cannot be read. */
  get isUnread(): boolean {
    return this.#stored.unread !== undefined;
  }

  /** Throws why it cannot be read. */
  checkRead(): void {
    void this.#stored.said;
  }

  get budget(): DrillBudgetShape {
    return this.#stored.value.budget;
  }

  get sitePolicy(): DrillPolicyShape | undefined {
    return this.#stored.value.site;
  }

  get isPaused(): boolean {
    return this.#stored.value.isPaused;
  }

  isMachinePaused(machineId: string): boolean {
    return this.#stored.value.paused.includes(machineId);
  }

  of(machineId: string): DrillPolicyView {
    const { machines, site } = this.#stored.value;
    const own = machines.find((one) => one.machineId === machineId);
    if (own) return { policy: own.policy, from: 'machine' };
    return site ? { policy: site, from: 'site' } : { policy: null, from: 'nobody' };
  }

  async changeBudget({ cpuPercent, cpuWeight, ...others }: DrillBudgetRequest): Promise<void> {
    await this.#stored.change((before) => {
      const { cpuPercent: percentBefore, cpuWeight: weightBefore, ...rest } = before.budget;
      // null takes a limit away; what is not named stays.
      const percent = cpuPercent === undefined ? percentBefore : (cpuPercent ?? undefined);
      const weight = cpuWeight === undefined ? weightBefore : (cpuWeight ?? undefined);
      const budget = {
        ...{ ...rest, ...others },
        ...(percent === undefined ? {} : { cpuPercent: percent }),
        ...(weight === undefined ? {} : { cpuWeight: weight }),
      };
      return { ...before, budget };
    });
  }

  async pause(machineId: string | undefined, isPaused: boolean): Promise<void> {
    await this.#stored.change((before) => {
      if (machineId === undefined) return { ...before, isPaused };
      const others = before.paused.filter((one) => one !== machineId);
      return { ...before, paused: isPaused ? [...others, machineId] : others };
    });
  }

  async changeSite(policy: DrillPolicyShape | undefined): Promise<void> {
    await this.#stored.change(({ site: _before, ...others }) => ({
      ...others,
      ...(policy ? { site: policy } : {}),
    }));
  }

  /** undefined: what holds for all machines holds for this one. */
  async change(machineId: string, policy: DrillPolicyShape | null | undefined): Promise<void> {
    await this.#stored.change((before) => {
      const others = before.machines.filter((one) => one.machineId !== machineId);
      return { ...before, machines: policy === undefined ? others : [...others, { machineId, policy }] };
    });
  }

  /** The machine has no replica here any more. */
  async forget(machineId: string): Promise<void> {
    if (this.isUnread) return;
    await this.change(machineId, undefined);
    await this.pause(machineId, false);
  }
}
