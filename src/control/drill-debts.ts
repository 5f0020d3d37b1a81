import { join } from 'node:path';
import Type from 'typebox';
import type { FileSystem } from '../lib/files.ts';
import { recordKind } from '../lib/records.ts';
import type { DrillDebt } from '../recovery-point/index.ts';
import { Stored } from './stored.ts';

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

  static async open(files: FileSystem, dataDirectory: string): Promise<DrillDebts> {
    const path = join(dataDirectory, 'drill-debts.json');
    return new DrillDebts(await Stored.open(files, path, DEBTS, { debts: [] }));
  }

  of(machineId: string): DrillDebt | undefined {
    return this.#stored.value.debts.find((debt) => debt.machineId === machineId);
  }

  /** All that there are now; durable on return, and nothing is written where nothing has changed. */
  async settle(now: ReadonlyMap<string, DrillDebt>): Promise<void> {
    await this.#stored.change((before) => {
      const isSame =
        before.debts.length === now.size &&
        before.debts.every(({ machineId, sinceMs, afterSequence }) => {
          const debt = now.get(machineId);
          return debt?.sinceMs === sinceMs && debt.afterSequence === afterSequence;
        });
      if (isSame) return before;
      return { debts: [...now].map(([machineId, debt]) => ({ machineId, ...debt })) };
    });
  }
}
