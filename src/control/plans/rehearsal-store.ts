import { join } from 'node:path';
import Type from 'typebox';
import { RehearsalPatience, RehearsalTimes } from '../../api/index.ts';
import { canonicalJson, type Json } from '../../lib/canonical-json.ts';
import type { FileSystem } from '../../lib/files.ts';
import { recordKind } from '../../lib/records.ts';
import type { KeptRehearsal } from '../../plan/index.ts';
import type { AlertSink } from '../base/alerts.ts';
import { Stored } from '../base/stored.ts';

const Kept = Type.Object({
  rehearsals: Type.Array(
    Type.Object({
      plan: Type.String(),
      times: RehearsalTimes,
      withinMs: RehearsalPatience,
      sinceMs: Type.Number({ minimum: 0 }),
      lastBeganAtMs: Type.Optional(Type.Number({ minimum: 0 })),
      lastPassedAtMs: Type.Optional(Type.Number({ minimum: 0 })),
    }),
  ),
});
const REHEARSALS = recordKind('plan-rehearsals', 1, Kept);

/** `plan-rehearsals.json` of a site: which plans it rehearses by itself. Every change is durable on return. */
export class RehearsalStore {
  readonly #stored: Stored<Type.Static<typeof Kept>>;

  private constructor(stored: Stored<Type.Static<typeof Kept>>) {
    this.#stored = stored;
  }

  /** With `alerts` also where it cannot be read: nothing is rehearsed by itself then. */
  static async open(files: FileSystem, dataDirectory: string, alerts?: AlertSink): Promise<RehearsalStore> {
    const path = join(dataDirectory, 'plan-rehearsals.json');
    return new RehearsalStore(
      await Stored.open(files, path, REHEARSALS, { rehearsals: [] }, alerts && { alerts }),
    );
  }

  /** Which plans are rehearsed cannot be read. */
  get isUnread(): boolean {
    return this.#stored.unread !== undefined;
  }

  /** Throws why they cannot be read. */
  checkRead(): void {
    void this.#stored.said;
  }

  get all(): readonly KeptRehearsal[] {
    return this.#stored.value.rehearsals;
  }

  /** In the place of what is kept of the plan. */
  async put(kept: KeptRehearsal): Promise<void> {
    await this.#stored.change((before) => ({
      rehearsals: [...before.rehearsals.filter(({ plan }) => plan !== kept.plan), kept],
    }));
  }

  /** What has come of it, unless somebody has changed it meanwhile. Nothing is written where nothing has. */
  async settle(before: KeptRehearsal, after: KeptRehearsal): Promise<void> {
    if (isSame(before, after)) return;
    await this.#stored.change((all) =>
      all.rehearsals.some((one) => isSame(one, before))
        ? { rehearsals: all.rehearsals.map((one) => (isSame(one, before) ? after : one)) }
        : all,
    );
  }

  async remove(name: string): Promise<void> {
    await this.#stored.change((before) =>
      before.rehearsals.some(({ plan }) => plan === name)
        ? { rehearsals: before.rehearsals.filter(({ plan }) => plan !== name) }
        : before,
    );
  }
}

function isSame(one: KeptRehearsal, other: KeptRehearsal): boolean {
  return canonicalJson(one as unknown as Json) === canonicalJson(other as unknown as Json);
}
