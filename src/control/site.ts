import type { DatabaseSync } from 'node:sqlite';
import type { DoctorReport, RebuildReport, SiteView } from '../api/index.ts';
import { CpuGroups, Failovers, provenPoints } from '../failover/index.ts';
import type { DiskImages, Hypervisor } from '../hypervisor/index.ts';
import type { Clock } from '../lib/clock.ts';
import type { FileSystem } from '../lib/files.ts';
import { spaceAt } from '../lib/host-files.ts';
import type { Log } from '../lib/log.ts';
import type { Random } from '../lib/random.ts';
import { loadRecord, WARMSITE_VERSION } from '../lib/records.ts';
import {
  loadIdentity,
  type Pairing,
  PeerClient,
  PeerDirectory,
  PeerServer,
  type SiteIdentity,
  verifySignature,
} from '../peer/index.ts';
import { type SignedStatement, statementBytes, Zones } from '../recovery-point/index.ts';
import { Replicas, type ReplicaTools } from '../replica/index.ts';
import { PeerTarget, type ReplicationReceiver } from '../replication/index.ts';
import { AdoptionActs, settleAdoptions } from './adoptions.ts';
import { Alerts } from './alerts.ts';
import { ArrivalActs } from './arrival-acts.ts';
import { ArrivalRules } from './arrival-rules.ts';
import { Arrivals } from './arrivals.ts';
import { Audit } from './audit.ts';
import { BrokenReplicas } from './broken-replicas.ts';
import { openDatabase } from './database.ts';
import { examine } from './doctor.ts';
import { controlFailure } from './errors.ts';
import { EventHub } from './event-hub.ts';
import { FailoverActs } from './failover-acts.ts';
import { Forwards } from './forwards.ts';
import { GroupActs } from './group-acts.ts';
import { GroupFailovers } from './group-failovers.ts';
import { GroupPoints } from './group-points.ts';
import { Groups } from './groups.ts';
import { HandoverActs } from './handover-acts.ts';
import { HomeRights } from './home-rights.ts';
import { Inventory } from './inventory.ts';
import { Jobs } from './jobs.ts';
import { MachineActs } from './machine-acts.ts';
import { checkedMachine } from './machine-checks.ts';
import { IdentityWatch } from './machine-identity.ts';
import { Machines } from './machines.ts';
import { OlderCopies } from './older-copies.ts';
import { OlderCopyActs } from './older-copy-acts.ts';
import { OriginActs } from './origin-acts.ts';
import { Origins } from './origins.ts';
import { PeerActs } from './peer-acts.ts';
import { offeredRights, receiverOf } from './peer-calls.ts';
import { PeerLinks } from './peer-links.ts';
import { RecoveryPlans } from './plan-acts.ts';
import { PlanStore } from './plan-store.ts';
import { PointActs } from './point-acts.ts';
import { PointIndex } from './point-index.ts';
import { ReplicaActs } from './replica-acts.ts';
import { ReplicaFences } from './replica-fences.ts';
import { ReplicaKeeper } from './replica-keeper.ts';
import { RetentionFloor } from './retention-floor.ts';
import { SeedActs } from './seed-acts.ts';
import { checkDataDirectory, SITE_RECORD, type SiteSettings, siteFiles } from './site-files.ts';
import { SiteLock } from './site-lock.ts';
import { pairingOf } from './site-pairing.ts';
import { SpaceWatch } from './space-watch.ts';
import { TargetActs } from './target-acts.ts';
import { TestKeeper } from './test-keeper.ts';
import { StoredTestRules } from './test-rules.ts';
import { TriggerActs } from './trigger-acts.ts';
import { TriggerTokens } from './trigger-tokens.ts';
import { recordOf } from './views.ts';

/** What a site needs of the world. */
export interface SiteTools {
  readonly files: FileSystem;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly hypervisor: Hypervisor;
  readonly images: DiskImages;
}

/** What is there before anything moves: identity, settings, records, replicas. */
interface Ground {
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
  readonly triggerTokens: TriggerTokens;
  readonly olderCopies: OlderCopies;
  readonly plans: PlanStore;
  readonly database: DatabaseSync;
  readonly peers: PeerDirectory;
  readonly origins: Origins;
  readonly replicaTools: ReplicaTools;
  readonly replicas: Replicas;
}

/** What moves: connections, loops, machines. */
interface Works {
  readonly keeper: ReplicaKeeper;
  readonly failovers: Failovers;
  readonly links: PeerLinks;
  readonly machines: Machines;
  readonly fences: ReplicaFences;
  readonly groups: Groups;
  readonly forwards: Forwards;
  readonly pairing: Pairing;
  readonly receiver: ReplicationReceiver;
  readonly peerServer: PeerServer;
}

/**
 * Everything of one site, composed from its data directory: one process, one object. What is closed or killed and opened
 * again goes on where it was; machines run on meanwhile.
 */
export class Site {
  readonly dataDirectory: string;
  readonly identity: SiteIdentity;
  readonly settings: SiteSettings;
  readonly events: EventHub;
  readonly alerts: Alerts;
  readonly audit: Audit;
  readonly jobs: Jobs;
  readonly machines: MachineActs;
  readonly targets: TargetActs;
  readonly triggers: TriggerActs;
  readonly groups: GroupActs;
  readonly points: PointActs;
  readonly failovers: FailoverActs;
  readonly groupFailovers: GroupFailovers;
  readonly handovers: HandoverActs;
  readonly adoptions: AdoptionActs;
  readonly plans: RecoveryPlans;
  readonly arrivals: ArrivalActs;
  readonly replicas: ReplicaActs;
  readonly origins: OriginActs;
  readonly seeds: SeedActs;
  readonly olderCopies: OlderCopyActs;
  readonly peers: PeerActs;
  readonly startedAtMs: number;
  readonly #ground: Ground;
  readonly #works: Works;
  readonly #arrivals: Arrivals;
  readonly #open: AsyncDisposableStack;

  private constructor(ground: Ground, works: Works, open: AsyncDisposableStack) {
    const { identity, settings, events, alerts, audit, database, tools } = ground;
    const { clock, random, log } = tools;
    const { keeper, fences, links, machines, groups, forwards, pairing, peerServer } = works;
    const { origins, zones } = ground;
    const inventory = new Inventory({
      ...{ machines, forwards, origins, links, clock, zones, replicas: ground.replicas },
    });
    const jobs = () => this.jobs;
    this.#ground = ground;
    this.#works = works;
    this.#open = open;
    this.dataDirectory = ground.dataDirectory;
    this.startedAtMs = clock.wallMs();
    this.identity = identity;
    this.settings = settings;
    this.events = events;
    this.alerts = alerts;
    this.audit = audit;
    const groupPoints = new GroupPoints(ground.replicas);
    const target = (siteId: string) => new PeerTarget({ siteId, client: links.client(siteId), clock });
    const tokens = ground.triggerTokens;
    this.machines = new MachineActs({ machines, inventory, links, audit, alerts, groups, tokens });
    this.triggers = new TriggerActs({ tokens, machines, inventory, audit });
    this.targets = new TargetActs({ machines, inventory, links, audit, groups });
    this.groups = new GroupActs({ groups, inventory, links, audit, keeper, points: groupPoints });
    this.points = new PointActs({
      ...{ machines, inventory, keeper, audit, jobs },
      ...{ replicaTools: ground.replicaTools, groupPoints },
      target,
    });
    const { points } = this;
    this.failovers = new FailoverActs({
      ...{ failovers: works.failovers, inventory, points, keeper, jobs, audit, fences },
      testRules: ground.testRules,
    });
    this.groupFailovers = new GroupFailovers({ groups: this.groups, failovers: this.failovers, inventory });
    this.handovers = new HandoverActs({
      ...{ machines, inventory, links, events, audit, clock, log, jobs, target },
      ...{ failovers: works.failovers, acts: this.failovers },
    });
    this.adoptions = new AdoptionActs({ ...works, inventory, audit, siteId: identity.siteId });
    this.plans = new RecoveryPlans({
      ...{ ...tools, inventory, audit, events, jobs, store: ground.plans, siteName: identity.name },
      ...{ failovers: this.failovers, handovers: this.handovers },
    });
    const { arrivalRules: rules, floor, replicas } = ground;
    this.replicas = new ReplicaActs({
      ...{ replicas, inventory, keeper, forwards, links, audit, alerts, rules, floor, zones: ground.zones },
      siteMeant: (reference) => this.targets.meant(reference),
      settle: (replica) => settleAdoptions({ ...tools, alerts }, ground.dataDirectory, [replica]),
    });
    this.origins = new OriginActs({ origins, replicas, links, audit });
    this.seeds = new SeedActs({
      ...{ files: tools.files, machines, inventory, replicas, keeper, forwards, jobs },
      targetMeant: (reference) => this.targets.meant(reference),
    });
    this.olderCopies = new OlderCopyActs({
      ...{ files: tools.files, images: tools.images, offers: ground.olderCopies, replicas, links, audit },
      onChanged: (siteId, machine) => works.receiver.olderCopiesChanged(siteId, machine),
    });
    this.peers = new PeerActs({
      ...{ identity, settings, pairing, links, machines, audit, clock, random },
      peers: ground.peers,
      ...{ replicas: ground.replicas, forwards },
      port: peerServer.address.port,
    });
    this.jobs = new Jobs({
      ...{ database, clock, random, log, events, audit },
      handlers: {
        ...points.handlers,
        'failover.test': this.failovers.testing,
        'failover.start': this.failovers.starting,
        'failover.restart': this.failovers.restarting,
        'failover.stop': this.failovers.stopping,
        'failover.forward': this.failovers.forwarding,
        'failover.prepare': this.failovers.preparing,
        ...this.handovers.handlers,
        ...this.plans.handlers,
        'failover.cleanup': this.failovers.cleaning,
        'seed.export': this.seeds.exporting,
        'seed.import': this.seeds.importing,
      },
    });
    this.#arrivals = new Arrivals({
      ...{ rules, alerts },
      replicaOf: (machineId) => {
        const replica = replicas.list().find(({ record }) => record.machineId === machineId);
        return replica?.awaitsSeed ? undefined : replica;
      },
      provenPoints: (replica) => provenPoints(tools.files, replica),
      removeBranch: async (replica, branchId) => {
        await works.failovers.cleanup(replica, branchId);
        keeper.tend(replica);
      },
      start: (request) => this.jobs.start(request),
      endOf: (jobId, signal) => this.jobs.endOf(jobId, signal),
    });
    this.arrivals = new ArrivalActs({ rules, arrivals: this.#arrivals, inventory, audit });
  }

  /**
   * Opens the site, listens for its peers and goes on with everything that was under way. Throws SITE_MISSING,
   * SITE_LOCKED, SITE_DATABASE_NEWER, SITE_DATABASE_DAMAGED, PEER_LISTEN_FAILED; nothing is left open then.
   */
  static async open(o: { dataDirectory: string; tools: SiteTools }): Promise<Site> {
    await using opening = new AsyncDisposableStack();
    const ground = await openGround(o, opening);
    const works = await openWorks(ground, opening);
    const site = new Site(ground, works, opening.move());
    site.audit.note({ actor: 'site', act: 'site.start', details: { version: WARMSITE_VERSION } });
    site.#open.defer(() => site.jobs.close());
    site.jobs.open();
    site.#open.defer(() => site.#arrivals.close());
    const end = site.events.listen((event) => {
      if (event.event !== 'point' || event.change !== 'published' || event.pointId === undefined) return;
      site.#arrivals.arrived(event.machineId, event.pointId);
    });
    site.#open.defer(end);
    await site.#arrivals.begin();
    for (const replica of ground.replicas.list()) works.keeper.tend(replica);
    return site;
  }

  /** Where other sites are served. */
  get peerAddress(): { readonly host: string; readonly port: number } {
    return this.#works.peerServer.address;
  }

  view(apiAddress: { readonly host: string; readonly port: number }): SiteView {
    const { replicas, identity } = this.#ground;
    const { machines, keeper } = this.#works;
    return {
      siteId: identity.siteId,
      name: identity.name,
      version: WARMSITE_VERSION,
      dataDirectory: this.dataDirectory,
      apiAddress: { ...apiAddress },
      peerAddress: { ...this.peerAddress },
      startedAtMs: this.startedAtMs,
      machines: {
        protected: machines.list().length,
        replicas: replicas.list().length,
        broken: machines.broken.length + replicas.broken.length,
      },
      points: keeper.indexedPoints,
      alerts: this.alerts.list({ all: false }).length,
      peers: this.peers.list(),
      keyId: identity.signer.keyId,
    };
  }

  /** Fills the index anew from the directories; says what could not be opened. */
  rebuild(actor: string): Promise<RebuildReport> {
    const { machines, keeper } = this.#works;
    const { replicas } = this.#ground;
    return this.audit.acting({ actor, act: 'site.rebuild' }, async () => {
      keeper.rebuildIndex();
      const broken = [...machines.broken, ...replicas.broken];
      return {
        machines: machines.list().length,
        replicas: replicas.list().length,
        points: keeper.indexedPoints,
        broken: broken.map(({ machineId, error }) => ({ machineId, error: recordOf(error) })),
      };
    });
  }

  doctor(): Promise<DoctorReport> {
    const { machines } = this.#works;
    return examine({
      machines: machines.list().map(({ machine }) => checkedMachine(machine)),
      broken: [...machines.broken, ...this.#ground.replicas.broken],
      dataDirectory: this.dataDirectory,
      hypervisor: this.#ground.tools.hypervisor,
      peers: this.peers.list(),
      audit: () => this.audit.check(),
      ports: { peer: this.peerAddress.port },
    });
  }

  /** Lets go of everything, in order; machines run on. */
  close(): Promise<void> {
    return this.#open.disposeAsync();
  }
}

async function openGround(
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
    const key = siteId === identity.siteId ? identity.signingKey : origins.confirmed(siteId)?.signingKey;
    return (
      key !== undefined && verifySignature(key, statementBytes(statement), Buffer.from(signature, 'base64'))
    );
  };
  const zones = new Zones();
  const replicaTools: ReplicaTools = { files, images, clock, log, zones, isSignedBySource };
  // Merges that were interrupted are ended by the keeper, beside everything else.
  const replicas = await Replicas.open(replicaTools, dataDirectory, 'left');
  const audit = new Audit({ database, clock });
  const testRules = await StoredTestRules.open(files, dataDirectory);
  const arrivalRules = await ArrivalRules.open(files, dataDirectory);
  const floor = await RetentionFloor.open(files, dataDirectory, zones);
  const triggerTokens = await TriggerTokens.open({ ...tools, dataDirectory });
  const olderCopies = await OlderCopies.open(tools, dataDirectory);
  const plans = await PlanStore.open({ ...tools, alerts }, dataDirectory);
  return {
    ...{ dataDirectory, tools, identity, settings, events, alerts, audit, zones },
    ...{ database, peers, origins, replicaTools, replicas },
    ...{ testRules, floor, arrivalRules, triggerTokens, olderCopies, plans },
  };
}

async function openWorks(ground: Ground, opening: AsyncDisposableStack): Promise<Works> {
  const { dataDirectory, tools, identity, settings, events, alerts, audit } = ground;
  const { database, peers, replicas, zones } = ground;
  const { files, clock, random, log, hypervisor } = tools;
  const index = new PointIndex(database);
  let forwards: Forwards | undefined;
  const keeper = new ReplicaKeeper({
    ...{ files, replicas, index, alerts, events, log },
    forwarding: (replica) => forwards?.reasons(replica) ?? new Map(),
    floor: (replica) => ground.floor.reasons(replica),
  });
  opening.defer(() => keeper.close());
  keeper.rebuildIndex();
  const { signer, siteId } = identity;
  const runDirectory = siteFiles(dataDirectory).run;
  let machines: Machines | undefined;
  const failovers = new Failovers({
    ...{ files, hypervisor, clock, random, log, siteId, signer, runDirectory },
    testRules: () => ground.testRules.rules,
    freeBytes: async () => (await spaceAt(dataDirectory)).freeBytes,
    cpuGroups: new CpuGroups(clock),
    machinesHere: () => machines?.running ?? [],
  });
  opening.defer(() => failovers.close());
  await settleAdoptions({ files, log, alerts }, dataDirectory, replicas.list());
  await failovers.recover(replicas.list());
  const broken = new BrokenReplicas({
    ...{ replicas, clock, alerts },
    prepare: async (replica) => {
      await settleAdoptions({ files, log, alerts }, dataDirectory, [replica]);
      await failovers.recover([replica]);
      await forwards?.take(replica);
    },
    onOpened: (replica) => keeper.tend(replica),
  });
  opening.defer(() => broken.close());
  const links = new PeerLinks({
    ...{ peers, clock, log, alerts },
    connect: (peer) => new PeerClient({ identity, peer, clock, random }),
    onReachable: (peerId) => {
      machines?.kick(peerId);
      forwards?.kick(peerId);
    },
  });
  opening.defer(() => links.close());
  const target = (peerId: string) => new PeerTarget({ siteId: peerId, client: links.client(peerId), clock });
  forwards = await Forwards.open(
    {
      ...{ clock, random, log, alerts, events, target },
      forwarding: { ...ground.replicaTools, random },
      origin: (siteId) => ground.origins.confirmed(siteId),
    },
    replicas.list(),
  );
  const forwarded = forwards;
  opening.defer(() => forwarded.close());
  machines = await Machines.open({
    ...tools,
    ...{ dataDirectory, signer, siteId, zones },
    loop: {
      ...{ clock, random, log, files, alerts, audit, events, zones, spaceAt },
      identities: new IdentityWatch({ alerts, log }),
      target,
    },
  });
  const opened = machines;
  opening.defer(() => opened.close());
  const groups = await Groups.open({
    ...{ files, clock, random, log, zones, alerts, hypervisor, dataDirectory, machines, target },
  });
  opening.defer(() => groups.close());
  const pairing = pairingOf({ identity, peers, files, dataDirectory, clock, random, alerts, audit });
  const fences = new ReplicaFences({ siteId, clock, failovers, replicas, alerts, audit, log });
  opening.defer(() => fences.close());
  fences.begin();
  const home = new HomeRights({
    ...{ ...tools, siteId, machines, replicas, failovers, audit, alerts },
    isForwarded: (replica) => forwarded.reports(replica).length > 0,
    onTurnedBack: (replica) => {
      fences.look(replica);
      keeper.tend(replica);
    },
  });
  opening.defer(() => home.close());
  const receiver = receiverOf({ ...ground, ...tools, keeper, forwards, home });
  const peerServer = await PeerServer.listen({
    ...settings.peer,
    ...{ identity, peers, pairing, clock, random, log, upload: receiver.upload },
    calls: { ...receiver.calls, ...offeredRights({ ...ground, siteId, fences, home }).calls },
  });
  opening.defer(() => peerServer.close());
  const tests = new TestKeeper({ failovers, replicas, keeper, alerts, clock });
  opening.defer(() => tests.close());
  const space = new SpaceWatch({ dataDirectory, clock, alerts });
  opening.defer(() => space.close());
  return { keeper, failovers, fences, links, machines, groups, forwards, pairing, receiver, peerServer };
}
