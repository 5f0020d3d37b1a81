import { join } from 'node:path';
import Type from 'typebox';
import type { FailoverRules, FailoverRulesRequest } from '../../api/index.ts';
import type { FileSystem } from '../../lib/files.ts';
import { recordKind } from '../../lib/records.ts';
import type { AlertSink } from '../base/alerts.ts';
import type { Audit } from '../base/audit.ts';
import { Stored } from '../base/stored.ts';

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
  readonly #stored: Stored<FailoverRules>;

  private constructor(stored: Stored<FailoverRules>) {
    this.#stored = stored;
  }

  /** With `alerts` also where it cannot be read: what holds unless somebody says otherwise holds then. */
  static async open(files: FileSystem, dataDirectory: string, alerts?: AlertSink): Promise<StoredTestRules> {
    const path = join(dataDirectory, 'tests.json');
    return new StoredTestRules(
      await Stored.open(files, path, TEST_RULES, DEFAULT_RULES, alerts && { alerts }),
    );
  }

  /** As people have said them. Throws why they cannot be read. */
  get said(): FailoverRules {
    return this.#stored.said;
  }

  /** As they hold, also where they cannot be read. */
  get rules(): FailoverRules {
    return this.#stored.value;
  }

  /** Durable on return; what is not named stays as it is, and `lifetimeMs: null` lets tests stay for ever. */
  change(audit: Audit, actor: string, request: FailoverRulesRequest): Promise<FailoverRules> {
    return audit.acting({ actor, act: 'failover.rules', details: { ...request } }, () =>
      this.#stored.change((before) => {
        const { lifetimeMs, ...others } = { ...before, ...request };
        const isLimited = lifetimeMs !== undefined && lifetimeMs !== null;
        return { ...others, ...(isLimited ? { lifetimeMs } : {}) };
      }),
    );
  }
}
