import type { DatabaseSync } from 'node:sqlite';
import type { ReportPolicy } from '../api/index.ts';
import { SitePrograms } from '../failover/index.ts';
import type { DiskImages, Hypervisor, LeaseGuards } from '../hypervisor/index.ts';
import type { BootClock } from '../lib/boot-clock.ts';
import type { Clock } from '../lib/clock.ts';
import { messageOf } from '../lib/errors.ts';
import type { FileSystem } from '../lib/files.ts';
import type { Log } from '../lib/log.ts';
import type { Random } from '../lib/random.ts';
import { loadRecord } from '../lib/records.ts';
import { loadIdentity, PeerDirectory, type SiteIdentity, verifySignature } from '../peer/index.ts';
import { type SignedStatement, statementBytes, Zones } from '../recovery-point/index.ts';
import { Replicas, type ReplicaTools } from '../replica/index.ts';
import { openFencing, type StoredFencing } from './acts/fencing-acts.ts';
import { Alerts } from './base/alerts.ts';
import { Audit } from './base/audit.ts';
import { openDatabase } from './base/database.ts';
import { EventHub } from './base/event-hub.ts';
import { checkDataDirectory, SITE_RECORD, type SiteSettings, siteFiles } from './base/site-files.ts';
import { SiteLock } from './base/site-lock.ts';
import type { Stored } from './base/stored.ts';
import { ArrivalRules } from './drills/arrival-rules.ts';
import { type DrillStore, openDrillStore } from './drills/drill-store.ts';
import { controlFailure } from './errors.ts';
import { TriggerTokens } from './machines/trigger-tokens.ts';
import { PlanStore } from './plans/plan-store.ts';
import { RehearsalStore } from './plans/rehearsal-store.ts';
import { endRemovals } from './replicas/generations.ts';
import { OlderCopies } from './replicas/older-copies.ts';
import { confirmedKey, Origins } from './replicas/origins.ts';
import { RetentionFloor } from './replicas/retention-floor.ts';
import { StoredTestRules } from './replicas/test-rules.ts';
import { openReportPolicy } from './reports/report-keeper.ts';

/** What a site needs of the world. */
export interface SiteTools {
  readonly files: FileSystem;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly hypervisor: Hypervisor;
  readonly images: DiskImages;
  readonly leaseGuards: LeaseGuards;
  /** Shared by all processes of the host, and counting while it sleeps. */
  readonly bootClock: BootClock;
}

/** What is there before anything moves: identity, settings, records, replicas. */
export interface Ground {
  readonly dataDirectory: string;
  readonly tools: SiteTools;
  readonly identity: SiteIdentity;
  readonly settings: SiteSettings;
  readonly events: EventHub;
  readonly alerts: Alerts;
  readonly audit: Audit;
  readonly zones: Zones;
  readonly testRules: StoredTestRules;
  readonly floor: RetentionFloor;
  readonly arrivalRules: ArrivalRules;
  readonly drillStore: DrillStore;
  readonly triggerTokens: TriggerTokens;
  readonly olderCopies: OlderCopies;
  readonly plans: PlanStore;
  readonly planRehearsals: RehearsalStore;
  readonly reportPolicy: Stored<ReportPolicy>;
  readonly programs: SitePrograms;
  readonly fencing: Stored<StoredFencing>;
  readonly database: DatabaseSync;
  readonly peers: PeerDirectory;
  readonly origins: Origins;
  readonly replicaTools: ReplicaTools;
  readonly replicas: Replicas;
}

/** Opens what is there. Throws SITE_MISSING, SITE_LOCKED, SITE_DATABASE_NEWER, SITE_DATABASE_DAMAGED. */
export async function openGround(
  { dataDirectory, tools }: { dataDirectory: string; tools: SiteTools },
  opening: AsyncDisposableStack,
): Promise<Ground> {
  const { files, clock, log, images } = tools;
  checkDataDirectory(dataDirectory);
  const paths = siteFiles(dataDirectory);
  const settings = await loadRecord(files, paths.settings, SITE_RECORD);
  const identity = settings && (await loadIdentity(files, dataDirectory));
  if (!identity) throw controlFailure('SITE_MISSING', `there is no site in ${dataDirectory}`);
  const lock = SiteLock.take(dataDirectory);
  opening.defer(() => lock.release());
  await files.makeDirectory(paths.run);
  const database = openDatabase(paths.database);
  opening.defer(() => database.close());
  const events = new EventHub();
  const alerts = new Alerts({ database, clock, events, log });
  const peers = await PeerDirectory.load(files, dataDirectory);
  const origins = await Origins.open({
    ...{ files, clock, alerts, dataDirectory, ownSiteId: identity.siteId },
    peer: (siteId) => peers.get(siteId),
  });
  const isSignedBySource = (siteId: string, { statement, signature }: SignedStatement): boolean => {
    const key = confirmedKey({ identity, origins }, siteId);
    return (
      key !== undefined && verifySignature(key, statementBytes(statement), Buffer.from(signature, 'base64'))
    );
  };
  const zones = new Zones();
  const replicaTools: ReplicaTools = { files, images, clock, log, zones, isSignedBySource };
  await endRemovals(tools, dataDirectory, (directory, error) =>
    log.error('removal.not-ended', { directory, reason: messageOf(error) }),
  );
  // Merges that were interrupted are ended by the keeper, beside everything else.
  const replicas = await Replicas.open(replicaTools, dataDirectory, 'left');
  const audit = new Audit({ database, clock });
  const testRules = await StoredTestRules.open(files, dataDirectory, alerts);
  const arrivalRules = await ArrivalRules.open(files, dataDirectory, alerts);
  const drillStore = await openDrillStore(files, dataDirectory, arrivalRules, alerts);
  const floor = await RetentionFloor.open(files, dataDirectory, zones, alerts);
  const triggerTokens = await TriggerTokens.open({ ...tools, dataDirectory, alerts });
  const olderCopies = await OlderCopies.open(tools, dataDirectory, alerts);
  const plans = await PlanStore.open({ ...tools, alerts, events }, dataDirectory);
  // A person may have moved the file of a run away that could not be read.
  alerts.clearGone('plan-run', plans.unreadRuns);
  const planRehearsals = await RehearsalStore.open(files, dataDirectory, alerts);
  const reportPolicy = await openReportPolicy(files, dataDirectory, alerts);
  const fencing = await openFencing(files, dataDirectory, alerts);
  const programs = new SitePrograms({
    ...{ directory: paths.programs, clock, ownId: process.getuid?.() ?? 0 },
  });
  return {
    ...{ dataDirectory, tools, identity, settings, events, alerts, audit, zones },
    ...{ database, peers, origins, replicaTools, replicas },
    ...{
      testRules,
      floor,
      arrivalRules,
      drillStore,
      triggerTokens,
      olderCopies,
      plans,
      planRehearsals,
      programs,
      fencing,
      reportPolicy,
    },
  };
}
