import { join } from 'node:path';
import Type from 'typebox';
import { ArrivalRule } from '../api/index.ts';
import type { FileSystem } from '../lib/files.ts';
import { recordKind } from '../lib/records.ts';
import { Stored } from './stored.ts';

const Arrivals = Type.Object({
  rules: Type.Array(Type.Object({ machineId: Type.String(), rule: ArrivalRule })),
});
type Arrivals = Type.Static<typeof Arrivals>;
const ARRIVALS = recordKind('arrivals', 1, Arrivals);

/** `arrivals.json` of a site: what is done with the points that arrive, by machine. */
export class ArrivalRules {
  readonly #stored: Stored<Arrivals>;

  private constructor(stored: Stored<Arrivals>) {
    this.#stored = stored;
  }

  static async open(files: FileSystem, dataDirectory: string): Promise<ArrivalRules> {
    const path = join(dataDirectory, 'arrivals.json');
    return new ArrivalRules(await Stored.open(files, path, ARRIVALS, { rules: [] }));
  }

  of(machineId: string): ArrivalRule | undefined {
    return this.#stored.value.rules.find((one) => one.machineId === machineId)?.rule;
  }

  get machineIds(): readonly string[] {
    return this.#stored.value.rules.map(({ machineId }) => machineId);
  }

  /** Durable on return; without a rule nothing is done with points of this machine. */
  async change(machineId: string, rule: ArrivalRule | undefined): Promise<void> {
    await this.#stored.change((before) => {
      const others = before.rules.filter((one) => one.machineId !== machineId);
      if (!rule) return others.length === before.rules.length ? before : { rules: others };
      return { rules: [...others, { machineId, rule }] };
    });
  }
}
