import { join } from 'node:path';
import Type from 'typebox';
import { ArrivalRule } from '../api/index.ts';
import type { FileSystem } from '../lib/files.ts';
import { Mutex } from '../lib/mutex.ts';
import { loadRecord, recordKind, storeRecord } from '../lib/records.ts';

const ARRIVALS = recordKind(
  'arrivals',
  1,
  Type.Object({ rules: Type.Array(Type.Object({ machineId: Type.String(), rule: ArrivalRule })) }),
);

/** `arrivals.json` of a site: what is done with the points that arrive, by machine. */
export class ArrivalRules {
  readonly #files: FileSystem;
  readonly #path: string;
  readonly #changing = new Mutex();
  #rules: ReadonlyMap<string, ArrivalRule>;

  private constructor(files: FileSystem, path: string, rules: ReadonlyMap<string, ArrivalRule>) {
    this.#files = files;
    this.#path = path;
    this.#rules = rules;
  }

  static async open(files: FileSystem, dataDirectory: string): Promise<ArrivalRules> {
    const path = join(dataDirectory, 'arrivals.json');
    const { rules = [] } = (await loadRecord(files, path, ARRIVALS)) ?? {};
    return new ArrivalRules(files, path, new Map(rules.map(({ machineId, rule }) => [machineId, rule])));
  }

  of(machineId: string): ArrivalRule | undefined {
    return this.#rules.get(machineId);
  }

  get machineIds(): readonly string[] {
    return [...this.#rules.keys()];
  }

  /** Durable on return; without a rule nothing is done with points of this machine. */
  change(machineId: string, rule: ArrivalRule | undefined): Promise<void> {
    return this.#changing.run(async () => {
      const rules = new Map(this.#rules);
      if (rule) rules.set(machineId, rule);
      else if (!rules.delete(machineId)) return;
      const listed = [...rules].map(([id, one]) => ({ machineId: id, rule: one }));
      await storeRecord(this.#files, this.#path, ARRIVALS, { rules: listed });
      this.#rules = rules;
    });
  }
}
