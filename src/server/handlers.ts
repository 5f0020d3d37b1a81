import {
  type RouteAnswer,
  type RouteBody,
  type RouteName,
  type RouteParams,
  type RouteQuery,
  WAIT_MS_MAX,
} from '../api/index.ts';
import type { Site } from '../control/index.ts';

/** A request that has been authenticated and checked. */
export interface Asked<N extends RouteName> {
  readonly site: Site;
  readonly actor: string;
  readonly params: RouteParams<N>;
  readonly query: RouteQuery<N>;
  readonly body: RouteBody<N>;
  /** Where the API listens. */
  readonly apiAddress: { readonly host: string; readonly port: number };
  /** Aborted when the client goes away. */
  readonly signal: AbortSignal;
}

export type Handlers = {
  readonly [N in RouteName]: (asked: Asked<N>) => Promise<RouteAnswer<N>> | RouteAnswer<N>;
};

const AUDIT_ENTRIES = 200;
const AUDIT_ENTRIES_MAX = 1000;

const done = { done: true } as const;

/** What each route does; everything that is decided is decided below, in control. */
export const HANDLERS: Handlers = {
  'site.show': ({ site, apiAddress }) => site.view(apiAddress),
  'site.token': ({ site, actor, body }) => site.peers.issueToken(actor, body),
  'site.pair': ({ site, actor, body }) => site.peers.redeem(actor, body),
  'site.peers': ({ site }) => site.peers.list(),
  'peer.remove': ({ site, actor, params, body }) =>
    site.peers.remove(actor, params.peer, body.force ?? false),
  'peer.address': ({ site, actor, params, body }) => site.peers.changeAddress(actor, params.peer, body),
  'site.rebuild': ({ site, actor }) => site.rebuild(actor),
  'vm.add': ({ site, actor, body }) => site.machines.add(actor, body),
  'vm.list': ({ site }) => site.machines.list(),
  'vm.show': ({ site, params }) => site.machines.show(params.machine),
  'vm.rename': ({ site, actor, params, body }) => site.machines.rename(actor, params.machine, body.name),
  'vm.move': ({ site, actor, params, body }) => site.machines.move(actor, params.machine, body),
  'vm.start': ({ site, actor, params }) => site.machines.start(actor, params.machine),
  'vm.stop': ({ site, actor, params, body }) => site.machines.stop(actor, params.machine, body),
  'vm.protect': ({ site, actor, params, body }) => site.machines.protect(actor, params.machine, body),
  'vm.lease': ({ site, actor, params, body }) => site.leases.begin(actor, params.machine, body),
  'lease.forget': ({ site, actor, params }) => site.leases.forget(actor, params.machine),
  'vm.lease.end': ({ site, actor, params, body }) => site.leases.end(actor, params.machine, body),
  'vm.disk.add': ({ site, actor, params, body }) => site.machines.addDisk(actor, params.machine, body),
  'vm.disk.remove': ({ site, actor, params }) => site.machines.removeDisk(actor, params.machine, params.disk),
  'vm.unprotect': ({ site, actor, params, body }) => site.machines.unprotect(actor, params.machine, body),
  'vm.policy': ({ site, actor, params, body }) => site.machines.changePolicy(actor, params.machine, body),
  'target.add': ({ site, actor, params, body }) => site.targets.add(actor, params.machine, body),
  'target.change': ({ site, actor, params, body }) =>
    site.targets.change(actor, params.machine, params.target, body),
  'target.remove': ({ site, actor, params }) => site.targets.remove(actor, params.machine, params.target),
  'trigger.call': async ({ site, actor, params }) => ({
    copyTypes: [...(await site.machines.callTrigger(actor, params.machine, params.trigger))],
  }),
  'trigger.create': ({ site, actor, params, body }) => site.triggers.create(actor, params.machine, body),
  'trigger.list': ({ site }) => site.triggers.list(),
  'trigger.revoke': ({ site, actor, params }) => site.triggers.revoke(actor, params.trigger),
  'trigger.use': ({ site, actor, params }) => site.triggers.use(actor, params.trigger),
  'vm.remove': async ({ site, actor, params }) => {
    await site.machines.remove(actor, params.machine);
    return done;
  },
  'point.list': ({ site, params }) => site.points.list(params.machine),
  'point.show': ({ site, params }) => site.points.show(params.machine, params.point),
  'point.create': ({ site, actor, params, body }) => site.points.create(actor, params.machine, body),
  'point.verify': ({ site, actor, params }) => site.points.verify(actor, params.machine, params.point),
  'point.hold': ({ site, actor, params, body }) =>
    site.points.hold(actor, params.machine, params.point, body),
  'point.release': ({ site, actor, params }) => site.points.release(actor, params.machine, params.point),
  'retention.preview': ({ site, params, body }) => site.points.preview(params.machine, body),
  'group.create': ({ site, actor, body }) => site.groups.create(actor, body),
  'group.list': ({ site }) => site.groups.list(),
  'group.show': ({ site, params }) => site.groups.show(params.group),
  'group.change': ({ site, actor, params, body }) => site.groups.change(actor, params.group, body),
  'group.remove': async ({ site, actor, params }) => {
    await site.groups.remove(actor, params.group);
    return done;
  },
  'group.cut': ({ site, actor, params, body }) => site.groups.cut(actor, params.group, body.type ?? 'crash'),
  'group.test': ({ site, actor, params, body }) => site.groupFailovers.test(actor, params.group, body),
  'group.failover': ({ site, actor, params, body }) => site.groupFailovers.start(actor, params.group, body),
  'group.points': ({ site, params }) => site.groups.points(params.group),
  'generation.list': ({ site, params }) => site.generations.list(params.machine),
  'generation.remove': async ({ site, actor, params }) => {
    await site.generations.remove(actor, params.machine, params.generation);
    return done;
  },
  'replica.remove': async ({ site, actor, params }) => {
    await site.replicas.remove(actor, params.machine);
    return done;
  },
  'replica.forward': ({ site, actor, params, body }) => site.replicas.forward(actor, params.machine, body),
  'replica.floor': async ({ site }) => site.replicas.floor,
  'replica.changeFloor': ({ site, actor, body }) => site.replicas.changeFloor(actor, body),
  'replica.unforward': ({ site, actor, params }) =>
    site.replicas.unforward(actor, params.machine, params.target),
  'origin.list': ({ site }) => site.origins.list(),
  'origin.confirm': ({ site, actor, params, body }) => site.origins.confirm(actor, params.origin, body.keyId),
  'origin.forget': async ({ site, actor, params }) => {
    await site.origins.forget(actor, params.origin);
    return done;
  },
  'failover.test': ({ site, actor, params, body }) => site.failovers.test(actor, params.machine, body),
  'failover.prepare': ({ site, actor, params, body }) => site.failovers.prepare(actor, params.machine, body),
  'arrival.show': ({ site, params }) => site.arrivals.show(params.machine),
  'arrival.set': ({ site, actor, params, body }) => site.arrivals.change(actor, params.machine, body),
  'arrival.clear': ({ site, actor, params }) => site.arrivals.change(actor, params.machine, null),
  'drill.status': ({ site }) => site.drills.status(),
  'drill.budget': ({ site, actor, body }) => site.drills.budget(actor, body),
  'drill.pause': ({ site, actor, body }) => site.drills.pause(actor, body.isPaused, body.machine),
  'drill.setSitePolicy': ({ site, actor, body }) => site.drills.changeSitePolicy(actor, body),
  'drill.clearSitePolicy': ({ site, actor }) => site.drills.changeSitePolicy(actor, undefined),
  'drill.list': async ({ site, params }) => site.drills.list(params.machine),
  'drill.now': ({ site, actor, params, body }) => site.drills.now(actor, params.machine, body),
  'drill.policy': async ({ site, params }) => site.drills.policy(params.machine),
  'drill.setPolicy': ({ site, actor, params, body }) =>
    site.drills.changePolicy(actor, params.machine, body.policy),
  'drill.clearPolicy': ({ site, actor, params }) =>
    site.drills.changePolicy(actor, params.machine, undefined),
  'failover.check': ({ site, params }) => site.failovers.check(params.machine, params.point),
  'failover.start': ({ site, actor, params, body }) => site.failovers.start(actor, params.machine, body),
  'failover.cede': async ({ site, actor, params, body }) => site.handovers.cede(actor, params.machine, body),
  'failover.withdraw': ({ site, actor, params, body }) =>
    site.handovers.withdraw(actor, params.machine, body),
  'failover.undo': async ({ site, actor, params, body }) => site.handovers.undo(actor, params.machine, body),
  'failover.take': async ({ site, actor, params, body }) => site.handovers.take(actor, params.machine, body),
  'failover.adopt': ({ site, actor, params, body }) => site.adoptions.adopt(actor, params.machine, body),
  'failover.rules': async ({ site }) => site.failovers.showRules(),
  'failover.changeRules': ({ site, actor, body }) => site.failovers.changeRules(actor, body),
  'fencing.show': ({ site }) => site.fencing.show(),
  'fencing.change': ({ site, actor, body }) => site.fencing.change(actor, body),
  'failover.list': ({ site, params }) => site.failovers.list(params.machine),
  'failover.restart': ({ site, actor, params, body }) =>
    site.failovers.restart(actor, params.machine, params.branch, body),
  'failover.testBranch': ({ site, actor, params, body }) =>
    site.failovers.testBranch(actor, params.machine, params.branch, body),
  'failover.export': ({ site, actor, params, body }) =>
    site.failovers.export(actor, params.machine, params.branch, body),
  'failover.stop': ({ site, actor, params, body }) =>
    site.failovers.stop(actor, params.machine, params.branch, body),
  'failover.forward': ({ site, actor, params, body }) =>
    site.failovers.forward(actor, params.machine, params.branch, body),
  'failover.cleanup': ({ site, actor, params }) =>
    site.failovers.cleanup(actor, params.machine, params.branch),
  'report.list': ({ site, query }) =>
    site.reports.list({
      before: query.before,
      ...(query.limit === undefined ? {} : { limit: Number(query.limit) }),
    }),
  'report.show': async ({ site, params }) => ({
    reportId: params.report,
    text: await site.reports.read(params.report),
  }),
  'report.remove': async ({ site, actor, params }) => {
    await site.reportKeeper.remove(actor, params.report);
    return done;
  },
  'report.policy': async ({ site }) => site.reportKeeper.policy,
  'report.changePolicy': ({ site, actor, body }) => site.reportKeeper.changePolicy(actor, body),
  'site.keys': ({ site }) => site.peers.keys(),
  'plan.list': async ({ site }) => [...site.plans.list()],
  'plan.check': async ({ site, body }) => site.plans.check(body),
  'plan.put': ({ site, actor, body }) => site.plans.put(actor, body),
  'plan.show': async ({ site, params }) => site.plans.show(params.plan),
  'plan.remove': async ({ site, actor, params }) => {
    await site.plans.remove(actor, params.plan);
    return done;
  },
  'plan.estimate': ({ site, params }) => site.plans.estimate(params.plan),
  'plan.run': ({ site, actor, params, body }) => site.plans.run(actor, params.plan, body),
  'plan.runs': async ({ site }) => [...site.plans.runs()],
  'plan.showRun': async ({ site, params }) => site.plans.showRun(params.run),
  'plan.approve': ({ site, actor, params, body }) => site.plans.approve(actor, params.run, body.machine),
  'plan.rehearsals': ({ site }) => site.rehearsals.list(),
  'plan.rehearse': ({ site, actor, params, body }) => site.rehearsals.change(actor, params.plan, body),
  'plan.rehearseNoMore': ({ site, actor, params }) => site.rehearsals.end(actor, params.plan),
  'seed.export': ({ site, actor, params, body }) => site.seeds.export(actor, params.machine, body),
  'seed.import': ({ site, actor, body }) => site.seeds.import(actor, body.path),
  'seed.offer': ({ site, actor, params, body }) => site.olderCopies.offer(actor, params.machine, body),
  'seed.withdraw': ({ site, actor, params }) => site.olderCopies.withdraw(actor, params.machine),
  'seed.offers': ({ site }) => site.olderCopies.list(),
  'job.list': ({ site }) => site.jobs.list(),
  'job.show': ({ site, params, query, signal }) =>
    site.jobs.waitFor(params.job, Math.min(Number(query.waitMs ?? 0), WAIT_MS_MAX), signal),
  'job.cancel': ({ site, actor, params }) =>
    site.audit.acting({ actor, act: 'job.cancel', details: { jobId: params.job } }, async () =>
      site.jobs.cancel(params.job),
    ),
  'alert.list': ({ site, query }) => site.alerts.list({ all: query.all === '1' }),
  'audit.list': ({ site, query }) => ({
    entries: site.audit.list({
      ...(query.before === undefined ? {} : { before: Number(query.before) }),
      limit: Math.min(Number(query.limit ?? AUDIT_ENTRIES), AUDIT_ENTRIES_MAX),
    }),
    chain: site.audit.check(),
  }),
  doctor: ({ site }) => site.doctor(),
};
