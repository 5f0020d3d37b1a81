import { join } from 'node:path';
import Type from 'typebox';
import type { FileSystem } from '../../lib/files.ts';
import { recordKind } from '../../lib/records.ts';
import type { DrillDebt } from '../../recovery-point/index.ts';
import type { AlertSink } from '../base/alerts.ts';
import { Stored } from '../base/stored.ts';

const Debts = Type.Object({
  debts: Type.Array(
    Type.Object({
      machineId: Type.String(),
      sinceMs: Type.Number(),
      afterSequence: Type.Integer({ minimum: 0 }),
    }),
  ),
});
const DEBTS = recordKind('drill-debts', 1, Debts);

/** `drill-debts.json` of a site: since when which machine lacks a proof. Points that began it may be gone. */
export class DrillDebts {
  readonly #stored: Stored<Type.Static<typeof Debts>>;

  private constructor(stored: Stored<Type.Static<typeof Debts>>) {
    this.#stored = stored;
  }

  /** With `alerts` also where it cannot be read: debts begin anew then, and are kept until the site ends. */
  static async open(files: FileSystem, dataDirectory: string, alerts?: AlertSink): Promise<DrillDebts> {
    const path = join(dataDirectory, 'drill-debts.json');
    const whileUnread = alerts && ({ alerts, changes: 'unsaved' } as const);
    return new DrillDebts(await Stored.open(files, path, DEBTS, { debts: [] }, whileUnread));
  }

  of(machineId: string): DrillDebt | undefined {
    return this.#stored.value.debts.find((debt) => debt.machineId === machineId);
  }

  /** What these machines owe now, those of the others stay; durable on return, and nothing is written where nothing has changed. */
  async settle(
    machines: readonly { readonly machineId: string; readonly debt?: DrillDebt | undefined }[],
  ): Promise<void> {
    await this.#stored.change((before) => {
      const known = new Map(before.debts.map((debt) => [debt.machineId, debt]));
      const isSame = machines.every(({ machineId, debt }) => {
        const { sinceMs, afterSequence } = known.get(machineId) ?? {};
        return sinceMs === debt?.sinceMs && afterSequence === debt?.afterSequence;
      });
      if (isSame) return before;
      for (const { machineId, debt } of machines) {
        if (debt) known.set(machineId, { machineId, ...debt });
        else known.delete(machineId);
      }
      return { debts: [...known.values()] };
    });
  }

  /** The machine has no replica here any more. */
  forget(machineId: string): Promise<void> {
    return this.settle([{ machineId }]);
  }
}
