import { join } from 'node:path';
import Type from 'typebox';
import type { FloorRequest, FloorView } from '../../api/index.ts';
import type { FileSystem } from '../../lib/files.ts';
import { recordKind } from '../../lib/records.ts';
import { Calendar, checkFloor, keptByFloor, type Zones } from '../../recovery-point/index.ts';
import type { Others, Replica } from '../../replica/index.ts';
import type { AlertSink } from '../base/alerts.ts';
import type { Audit } from '../base/audit.ts';
import { Stored } from '../base/stored.ts';

const FLOOR = recordKind('floor', 1, Type.Object({ calendar: Type.Optional(Calendar) }));

/**
 * `floor.json` of a site: what it keeps of every replica, whatever the site says that sends the points. docs/policies.md,
 * «A floor at the recovery site».
 */
export class RetentionFloor {
  readonly #stored: Stored<FloorView>;
  readonly #zones: Zones;

  private constructor(stored: Stored<FloorView>, zones: Zones) {
    this.#stored = stored;
    this.#zones = zones;
  }

  /** With `alerts` also where it cannot be read: every point stays then. */
  static async open(
    files: FileSystem,
    dataDirectory: string,
    zones: Zones,
    alerts?: AlertSink,
  ): Promise<RetentionFloor> {
    const path = join(dataDirectory, 'floor.json');
    return new RetentionFloor(await Stored.open(files, path, FLOOR, {}, alerts && { alerts }), zones);
  }

  /** Throws why it cannot be read. */
  get view(): FloorView {
    return this.#stored.said;
  }

  /** Durable on return. Throws POLICY_ZONE_UNKNOWN, POLICY_TOO_DEEP. */
  change(audit: Audit, actor: string, { calendar }: FloorRequest): Promise<FloorView> {
    return audit.acting({ actor, act: 'replica.floor', details: { calendar } }, async () => {
      if (calendar) checkFloor(calendar, this.#zones);
      return this.#stored.change(() => (calendar ? { calendar } : {}));
    });
  }

  /** The points that stay for it. */
  reasons({ points }: Replica): Others {
    const { calendar } = this.#stored.value;
    // What it keeps is not known: nothing may go.
    if (this.#stored.unread) return new Map(points.map(({ statement }) => [statement.pointId, ['floor']]));
    if (!calendar) return new Map();
    const arrived = points.map(({ statement: { pointId, sequence }, manifest }) => ({
      ...{ pointId, sequence },
      arrivedAtMs: manifest.publishedAtMs,
    }));
    return new Map([...keptByFloor(arrived, calendar, this.#zones)].map((id) => [id, ['floor']]));
  }
}
