import { join } from 'node:path';
import Type from 'typebox';
import type { FailoverRules, FailoverRulesRequest } from '../api/index.ts';
import type { FileSystem } from '../lib/files.ts';
import { Mutex } from '../lib/mutex.ts';
import { loadRecord, recordKind, storeRecord } from '../lib/records.ts';
import type { Audit } from './audit.ts';

const TEST_RULES = recordKind(
  'test-rules',
  1,
  Type.Object({
    mostRunning: Type.Integer({ minimum: 0 }),
    freeFloorBytes: Type.Integer({ minimum: 0 }),
    lifetimeMs: Type.Optional(Type.Integer({ minimum: 1 })),
  }),
);

/** A host that runs replicas has room for a few machines, not for one more with each forgotten test. */
const DEFAULT_RULES: FailoverRules = { mostRunning: 8, freeFloorBytes: 2 ** 30 };

/** `tests.json` of a site: what its test failovers may take together. */
export class StoredTestRules {
  readonly #files: FileSystem;
  readonly #path: string;
  readonly #changing = new Mutex();
  #rules: FailoverRules;

  private constructor(files: FileSystem, path: string, rules: FailoverRules) {
    this.#files = files;
    this.#path = path;
    this.#rules = rules;
  }

  static async open(files: FileSystem, dataDirectory: string): Promise<StoredTestRules> {
    const path = join(dataDirectory, 'tests.json');
    return new StoredTestRules(files, path, (await loadRecord(files, path, TEST_RULES)) ?? DEFAULT_RULES);
  }

  get rules(): FailoverRules {
    return this.#rules;
  }

  /** Durable on return; what is not named stays as it is, and `lifetimeMs: null` lets tests stay for ever. */
  change(audit: Audit, actor: string, request: FailoverRulesRequest): Promise<FailoverRules> {
    const details = { ...request };
    return audit.acting({ actor, act: 'failover.rules', details }, () =>
      this.#changing.run(async () => {
        const { lifetimeMs, ...others } = { ...this.#rules, ...request };
        const isLimited = lifetimeMs !== undefined && lifetimeMs !== null;
        const rules: FailoverRules = { ...others, ...(isLimited ? { lifetimeMs } : {}) };
        await storeRecord(this.#files, this.#path, TEST_RULES, rules);
        this.#rules = rules;
        return rules;
      }),
    );
  }
}
