import { join } from 'node:path';
import Type from 'typebox';
import type { FencingProgram, FencingRequest, FencingRule } from '../../api/index.ts';
import {
  FAILOVER_ERRORS,
  type FencedSide,
  type Fencing,
  fenceBy,
  type SitePrograms,
} from '../../failover/index.ts';
import type { Clock } from '../../lib/clock.ts';
import { failuresOf, messageOf } from '../../lib/errors.ts';
import type { FileSystem } from '../../lib/files.ts';
import { recordKind } from '../../lib/records.ts';
import type { PeerDirectory } from '../../peer/index.ts';
import type { AlertSink } from '../base/alerts.ts';
import type { Audit, AuditedAct } from '../base/audit.ts';
import { Stored } from '../base/stored.ts';

const FENCING = recordKind(
  'fencing',
  1,
  Type.Object({
    fencing: Type.Optional(
      Type.Object({
        program: Type.String(),
        arguments: Type.Optional(Type.Array(Type.String())),
        limitMs: Type.Optional(Type.Integer({ minimum: 1 })),
      }),
    ),
  }),
);

/** What a site has on record of its fencing program. */
export type StoredFencing = Pick<FencingRule, 'fencing'>;

/** `fencing.json` of a site. As long as it cannot be read the site has no program, and nothing passes as fenced by it. */
export function openFencing(
  files: FileSystem,
  dataDirectory: string,
  alerts: AlertSink,
): Promise<Stored<StoredFencing>> {
  const path = join(dataDirectory, 'fencing.json');
  return Stored.open<StoredFencing>(files, path, FENCING, {}, { alerts });
}

interface FencingTools {
  readonly fencing: Stored<StoredFencing>;
  readonly programs: SitePrograms;
  readonly audit: Audit;
  readonly tools: { readonly clock: Clock };
  readonly identity: { readonly name: string };
  readonly peers: Pick<PeerDirectory, 'get'>;
}

/** For whom something is fenced. */
export interface FencingJob {
  readonly jobId: string;
  readonly actor: string;
  readonly signal: AbortSignal;
  readonly onBegin: () => void;
}

/** The program of a site that makes sure that another one is down, before a machine of that one is brought up here. */
export class FencingActs {
  readonly #o: FencingTools;

  constructor(o: FencingTools) {
    this.#o = o;
  }

  async show(): Promise<FencingRule> {
    const { value, unread } = this.#o.fencing;
    if (unread) return { lack: unread.message };
    const { fencing } = value;
    const lack = fencing && (await this.#o.programs.lackOf(fencing.program));
    return { ...(fencing ? { fencing } : {}), ...(lack === undefined ? {} : { lack }) };
  }

  /** Durable on return. Throws FAILOVER_PROGRAM_UNKNOWN, FAILOVER_PROGRAM_UNSAFE: on the day itself that would be too late. */
  async change(actor: string, { fencing }: FencingRequest): Promise<FencingRule> {
    const { audit, programs } = this.#o;
    await audit.acting({ actor, act: 'failover.fencing', details: { fencing } }, async () => {
      if (fencing) await programs.find(fencing.program);
      await this.#o.fencing.change(() => (fencing ? { fencing } : {}));
    });
    return this.show();
  }

  /** What fences where nothing else is named. Throws FAILOVER_NO_FENCING, and why it is not known. */
  need(): FencingProgram {
    const { value, unread } = this.#o.fencing;
    if (unread) throw unread;
    const { fencing } = value;
    if (fencing) return fencing;
    const said = 'this site has no fencing program that could make sure that the other side is down';
    throw failuresOf(FAILOVER_ERRORS)('FAILOVER_NO_FENCING', said);
  }

  /**
   * Fences by a program, for a job. The intent is in the audit log before the program begins; that it has ended well is, durably, before
   * anything is done upon it. An intent without an end is of a run that was interrupted, and counts for nothing.
   */
  by(program: FencingProgram, { jobId, actor, signal, onBegin }: FencingJob): Fencing {
    const { audit, programs, tools, identity, peers } = this.#o;
    return {
      fence: async (side: FencedSide) => {
        const { machineId, siteId, epoch } = side;
        const details = { jobId, ...program, siteId, epoch };
        const act: AuditedAct = { actor, act: 'failover.fence', subject: machineId, details };
        const intent = audit.begin(act);
        onBegin();
        const environment = {
          WARMSITE_SITE: identity.name,
          WARMSITE_OTHER_SITE: peers.get(siteId)?.name ?? siteId,
        };
        try {
          const evidence = await fenceBy({ programs, ...tools }, program, { side, environment, signal });
          audit.attest(intent, act, { jobId, exitCode: 0, ...evidence });
        } catch (error) {
          audit.end(intent, act, error, { jobId, reason: messageOf(error) });
          throw error;
        }
      },
    };
  }
}
