import type { DoctorReport, RebuildReport, SiteView } from '../api/index.ts';
import { WARMSITE_VERSION } from '../lib/records.ts';
import type { SiteIdentity } from '../peer/index.ts';
import { PeerTarget } from '../replication/index.ts';
import { AdoptionActs, settleAdoptions } from './acts/adoptions.ts';
import { ArrivalActs } from './acts/arrival-acts.ts';
import { DivergedActs } from './acts/diverged-acts.ts';
import type { DrillActs } from './acts/drill-acts.ts';
import { FailoverActs } from './acts/failover-acts.ts';
import { FencingActs } from './acts/fencing-acts.ts';
import { GenerationActs } from './acts/generation-acts.ts';
import { GroupActs } from './acts/group-acts.ts';
import { GroupFailovers } from './acts/group-failovers.ts';
import { HandoverActs } from './acts/handover-acts.ts';
import { LeaseActs } from './acts/lease-acts.ts';
import { MachineActs } from './acts/machine-acts.ts';
import { OlderCopyActs } from './acts/older-copy-acts.ts';
import { OriginActs } from './acts/origin-acts.ts';
import { PeerActs } from './acts/peer-acts.ts';
import { RecoveryPlans } from './acts/plan-acts.ts';
import { PointActs } from './acts/point-acts.ts';
import type { RehearsalActs } from './acts/rehearsal-acts.ts';
import { ReplicaActs } from './acts/replica-acts.ts';
import { SeedActs } from './acts/seed-acts.ts';
import { TargetActs } from './acts/target-acts.ts';
import { TriggerActs } from './acts/trigger-acts.ts';
import type { Alerts } from './base/alerts.ts';
import type { Audit } from './base/audit.ts';
import type { EventHub } from './base/event-hub.ts';
import { Jobs } from './base/jobs.ts';
import type { SiteSettings } from './base/site-files.ts';
import { drillWorksOf } from './drill-works.ts';
import { Arrivals } from './drills/arrivals.ts';
import type { Drills } from './drills/drills.ts';
import { GroupPoints } from './groups/group-points.ts';
import { Inventory } from './inventory/inventory.ts';
import { recordOf } from './inventory/views.ts';
import type { PlanRehearsals } from './plans/rehearsals.ts';
import { rehearsalWorksOf } from './rehearsal-works.ts';
import { toStart } from './replicas/start-checks.ts';
import { endAdoptions } from './reports/report-adoptions.ts';
import { ReportKeeper } from './reports/report-keeper.ts';
import { Reports } from './reports/reports.ts';
import { type Ground, openGround, type SiteTools } from './site-ground.ts';
import { openWorks, type Works } from './site-works.ts';
import { examine } from './watch/doctor.ts';
import { checkedMachine } from './watch/machine-checks.ts';

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
  readonly fencing: FencingActs;
  readonly groupFailovers: GroupFailovers;
  readonly handovers: HandoverActs;
  readonly generations: GenerationActs;
  readonly adoptions: AdoptionActs;
  readonly leases: LeaseActs;
  readonly plans: RecoveryPlans;
  readonly rehearsals: RehearsalActs;
  readonly arrivals: ArrivalActs;
  readonly drills: DrillActs;
  readonly replicas: ReplicaActs;
  readonly origins: OriginActs;
  readonly seeds: SeedActs;
  readonly olderCopies: OlderCopyActs;
  readonly peers: PeerActs;
  readonly reports: Reports;
  readonly reportKeeper: ReportKeeper;
  readonly startedAtMs: number;
  readonly #ground: Ground;
  readonly #works: Works;
  readonly #arrivals: Arrivals;
  readonly #drills: Drills;
  readonly #rehearsals: PlanRehearsals;
  readonly #open: AsyncDisposableStack;

  private constructor(ground: Ground, works: Works, open: AsyncDisposableStack) {
    const { identity, settings, events, alerts, audit, database, tools, origins, zones } = ground;
    const { clock, random, log } = tools;
    const { keeper, fences, links, machines, groups, forwards, pairing, peerServer } = works;
    const { leases, diverged } = works;
    const inventory = new Inventory({
      siteId: identity.siteId,
      ...{ machines, leases, forwards, origins, links, clock, zones, replicas: ground.replicas },
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
    this.machines = new MachineActs({ ...works, inventory, audit, alerts, tokens });
    this.triggers = new TriggerActs({ tokens, machines, inventory, audit });
    this.targets = new TargetActs({ machines, inventory, links, audit, groups });
    const { files } = ground.tools;
    this.groups = new GroupActs({ groups, inventory, links, audit, keeper, points: groupPoints, files });
    this.points = new PointActs({
      ...{ machines, inventory, keeper, audit, jobs },
      ...{ replicaTools: ground.replicaTools, groupPoints },
      target,
    });
    const { points } = this;
    this.fencing = new FencingActs(ground);
    this.failovers = new FailoverActs({
      ...{ failovers: works.failovers, inventory, points, keeper, jobs, audit, fences },
      testRules: ground.testRules,
      ...{ votes: works.votes, fencing: this.fencing },
      diverged: new DivergedActs({ ...tools, ...works, inventory, jobs }),
    });
    this.leases = new LeaseActs({ leases, votes: works.votes, inventory, links, audit });
    this.groupFailovers = new GroupFailovers({ groups: this.groups, failovers: this.failovers, inventory });
    this.handovers = new HandoverActs({
      ...{ machines, inventory, links, events, audit, clock, log, jobs, target },
      ...{ siteId: identity.siteId, failovers: works.failovers, acts: this.failovers, diverged },
    });
    this.reports = new Reports({ ...tools, ...ground, inventory });
    const kept = { reports: this.reports, policy: ground.reportPolicy };
    this.reportKeeper = new ReportKeeper({ ...tools, ...ground, ...kept });
    this.adoptions = new AdoptionActs({ ...tools, ...ground, ...works, inventory, reports: this.reports });
    this.plans = new RecoveryPlans({
      ...{ ...tools, inventory, audit, events, jobs, store: ground.plans, programs: ground.programs },
      ...{ failovers: this.failovers, handovers: this.handovers, groups: this.groups },
      siteName: identity.name,
    });
    ({ loop: this.#rehearsals, acts: this.rehearsals } = rehearsalWorksOf(ground, this.plans, jobs));
    const { arrivalRules: rules, drillStore, floor, replicas } = ground;
    this.replicas = new ReplicaActs({
      ...{ replicas, inventory, keeper, forwards, links, audit, alerts, rules, floor, zones: ground.zones },
      ...{ drills: drillStore, fences: works.fences },
      siteMeant: (reference) => this.targets.meant(reference),
      settle: (replica) => settleAdoptions({ ...tools, alerts }, ground.dataDirectory, [replica]),
    });
    this.generations = new GenerationActs({ ...works, inventory, audit });
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
    ({ drills: this.#drills, acts: this.drills } = drillWorksOf({
      ...{ ...tools, inventory, points, jobs, audit, alerts, zones: ground.zones, keeper, replicas },
      ...{ store: drillStore, failovers: works.failovers, acts: this.failovers },
    }));
    this.jobs = new Jobs({
      ...{ database, clock, random, log, events, audit, recorder: this.reports },
      handlers: {
        ...points.handlers,
        ...this.failovers.handlers,
        ...this.handovers.handlers,
        ...this.plans.handlers,
        'drill.run': this.drills.running,
        'seed.export': this.seeds.exporting,
        'seed.import': this.seeds.importing,
      },
    });
    this.#arrivals = arrivalsOf(ground, works, this.jobs);
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
    endAdoptions(site.audit, (machineId, branchId) => isAdopted(works.machines, machineId, branchId));
    await site.reports.open();
    site.#open.defer(() => site.reports.close());
    site.#open.defer(() => site.jobs.close());
    await site.plans.dropUnbegun();
    site.jobs.open();
    void site.reports.makeUp(site.jobs.ended());
    void site.reports.ofAdoptions();
    site.#open.defer(() => site.reportKeeper.close());
    site.reportKeeper.begin();
    site.#open.defer(() => site.#arrivals.close());
    for (const one of [site.#drills, site.#arrivals, site.#rehearsals])
      site.#open.defer(site.events.listen((event) => one.heard(event)));
    site.#arrivals.begin();
    site.#open.defer(() => site.#drills.close());
    site.#drills.begin();
    site.#open.defer(() => site.#rehearsals.close());
    site.#rehearsals.begin();
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
    const { machines, generations } = this.#works;
    return examine({
      formerBytes: () => generations.formerBytes(),
      machines: machines.list().map(({ machine }) => checkedMachine(machine)),
      toStart: toStart(machines.list(), this.#ground.replicas.list()),
      broken: [...machines.broken, ...this.#ground.replicas.broken],
      dataDirectory: this.dataDirectory,
      hypervisor: this.#ground.tools.hypervisor,
      peers: this.peers.list(),
      audit: () => this.audit.check(),
      fencing: () => this.fencing.show(),
      ports: { peer: this.peerAddress.port },
    });
  }

  /** Lets go of everything, in order; machines run on. */
  close(): Promise<void> {
    return this.#open.disposeAsync();
  }
}

/** The machine's record decides; one that cannot be read says neither. */
function isAdopted(machines: Works['machines'], machineId: string, branchId: string): boolean | undefined {
  if (machines.broken.some((one) => one.machineId === machineId)) return undefined;
  return machines.get(machineId)?.machine.record.adopted?.branchId === branchId;
}

/** What happens by itself when points arrive. */
function arrivalsOf({ arrivalRules, alerts, replicas }: Ground, works: Works, jobs: Jobs): Arrivals {
  return new Arrivals({
    ...{ rules: arrivalRules, alerts },
    replicaOf: (machineId) => {
      const replica = replicas.list().find(({ record }) => record.machineId === machineId);
      return replica?.awaitsSeed ? undefined : replica;
    },
    removeBranch: async (replica, branchId) => {
      await works.failovers.cleanup(replica, branchId);
      works.keeper.tend(replica);
    },
    start: (request) => jobs.start(request),
    endOf: (jobId, signal) => jobs.endOf(jobId, signal),
  });
}
