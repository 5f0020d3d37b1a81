import { branchNetworks, CpuGroups, Failovers, type FailoverTools } from '../failover/index.ts';
import { spaceAt } from '../lib/host-files.ts';
import { type Pairing, PeerClient, PeerServer } from '../peer/index.ts';
import { type OfferedRights, PeerTarget, type ReplicationReceiver } from '../replication/index.ts';
import { passOnClaim, passOnClaims, settleAdoptions } from './acts/adoptions.ts';
import { HomeRights } from './acts/home-rights.ts';
import { offeredRights, receiverOf } from './acts/peer-calls.ts';
import { siteFiles } from './base/site-files.ts';
import { Groups } from './groups/groups.ts';
import { type LeaseWorks, leaseWorks } from './leases/lease-works.ts';
import type { HearClaim } from './leases/vote-book.ts';
import { IdentityWatch } from './machines/machine-identity.ts';
import { Machines } from './machines/machines.ts';
import { PeerLinks } from './peers/peer-links.ts';
import { pairingOf } from './peers/site-pairing.ts';
import { PlanTeller } from './plans/plan-teller.ts';
import { DivergedBranches } from './replicas/diverged-branches.ts';
import { Forwards } from './replicas/forwards.ts';
import { Generations } from './replicas/generations.ts';
import { PointIndex } from './replicas/point-index.ts';
import { ReplicaFences } from './replicas/replica-fences.ts';
import { ReplicaKeeper } from './replicas/replica-keeper.ts';
import { TestKeeper } from './replicas/test-keeper.ts';
import type { Ground } from './site-ground.ts';
import { BrokenReplicas } from './watch/broken-replicas.ts';
import { SpaceWatch } from './watch/space-watch.ts';

/** What moves: connections, loops, machines. */
export interface Works extends LeaseWorks {
  readonly keeper: ReplicaKeeper;
  readonly failovers: Failovers;
  readonly generations: Generations;
  readonly diverged: DivergedBranches;
  readonly links: PeerLinks;
  readonly machines: Machines;
  readonly fences: ReplicaFences;
  readonly groups: Groups;
  readonly forwards: Forwards;
  readonly pairing: Pairing;
  readonly plans: PlanTeller;
  readonly receiver: ReplicationReceiver;
  readonly peerServer: PeerServer;
}

/** Begins all that moves; it is ended by what is deferred to `opening`. Throws PEER_LISTEN_FAILED. */
export async function openWorks(ground: Ground, opening: AsyncDisposableStack): Promise<Works> {
  const { dataDirectory, tools, identity, events, alerts, audit } = ground;
  const { database, peers, replicas, zones } = ground;
  const { files, clock, random, log, hypervisor } = tools;
  const index = new PointIndex(database);
  let forwards: Forwards | undefined;
  const keeper = new ReplicaKeeper({
    ...{ files, replicas, index, alerts, events, log, clock, hypervisor },
    forwarding: (replica) => forwards?.reasons(replica) ?? new Map(),
    floor: (replica) => ground.floor.reasons(replica),
  });
  opening.defer(() => keeper.close());
  keeper.rebuildIndex();
  const { signer, siteId } = identity;
  let machines: Machines | undefined;
  let lending: LeaseWorks | undefined;
  let plans: PlanTeller | undefined;
  let rights: OfferedRights | undefined;
  const failovers = failoversOf(ground, {
    machinesHere: () => machines?.running ?? [],
    onHeld: async ({ record: { machineId } }) => lending?.votes.held(machineId),
  });
  opening.defer(() => failovers.close());
  await settleAdoptions({ files, log, alerts }, dataDirectory, replicas.list());
  await failovers.recover(replicas.list());
  const links = new PeerLinks({
    ...{ peers, clock, log, alerts },
    connect: (peer) => new PeerClient({ identity, peer, clock, random }),
    onReachable: (peerId) => {
      machines?.kick(peerId);
      forwards?.kick(peerId);
      plans?.reached(peerId);
    },
  });
  opening.defer(() => links.close());
  plans = tellingOf({ store: ground.plans, links, audit, clock, log }, opening);
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
    ...{ dataDirectory, signer, siteId, zones, networks: branchNetworks },
    beforeStart: async (machine) => lending?.leases.beforeStart(machine),
    loop: {
      ...{ clock, random, log, files, alerts, audit, events, zones, spaceAt },
      identities: new IdentityWatch({ alerts, log }),
      target,
    },
  });
  opening.defer(() => machines?.close());
  const passing = { siteId, machines, log, alerts };
  await passOnClaims(passing, replicas.list());
  const hear: HearClaim = async (machineId, claim) => void (await rights?.hear(machineId, claim));
  lending = await leaseWorks({ ...ground, ...tools, siteId, links, machines, hear }, opening);
  const groups = await Groups.open({
    ...{ files, clock, random, log, zones, alerts, hypervisor, dataDirectory, machines, target },
  });
  opening.defer(() => groups.close());
  const pairing = pairingOf({ identity, peers, files, dataDirectory, clock, random, alerts, audit });
  const fences = new ReplicaFences({
    ...{ siteId, clock, failovers, replicas, alerts, audit, log },
    passOn: (replica) => passOnClaim(passing, replica),
  });
  opening.defer(() => fences.close());
  fences.begin();
  const generations = new Generations({ ...ground, files, machines });
  const fenced = { siteId, machines, generations, groups, failovers };
  const diverged = await DivergedBranches.open({ ...ground, ...tools, ...fenced });
  const home = new HomeRights({
    ...{ ...tools, siteId, machines, replicas, failovers, audit, alerts, diverged },
    isForwarded: (replica) => forwarded.reports(replica).length > 0,
    onTurnedBack: (replica) => {
      fences.look(replica);
      keeper.tend(replica);
    },
  });
  opening.defer(() => home.close());
  const kept = { keeper, failovers, generations, diverged, machines, groups, plans, fences, links, forwards };
  const moving = { ...kept, ...lending, pairing };
  rights = offeredRights({ ...ground, ...moving, home, siteId });
  const served = await openToPeers(ground, { ...moving, home, rights }, opening);
  lending.votes.begin();
  watchHost(ground, moving, opening);
  return { ...moving, ...served };
}

function failoversOf(
  { dataDirectory, tools, identity, testRules, programs }: Ground,
  told: Pick<FailoverTools, 'machinesHere' | 'onHeld'>,
): Failovers {
  const { files, hypervisor, clock, random, log } = tools;
  const { siteId, signer } = identity;
  return new Failovers({
    ...{ files, hypervisor, clock, random, log, siteId, signer, programs, ...told },
    runDirectory: siteFiles(dataDirectory).run,
    testRules: () => testRules.rules,
    freeBytes: async () => (await spaceAt(dataDirectory)).freeBytes,
    cpuGroups: new CpuGroups(clock),
    networks: branchNetworks,
  });
}

/** What is looked at again and again for as long as the site is open. */
function watchHost(
  { dataDirectory, replicas, alerts, tools: { files, clock, log } }: Ground,
  o: Pick<Works, 'failovers' | 'keeper' | 'diverged' | 'fences' | 'forwards'>,
  opening: AsyncDisposableStack,
): void {
  const { failovers, keeper, diverged, fences, forwards } = o;
  const broken = new BrokenReplicas({
    ...{ replicas, clock, alerts },
    prepare: async (replica) => {
      await settleAdoptions({ files, log, alerts }, dataDirectory, [replica]);
      await failovers.recover([replica]);
      await forwards.take(replica);
    },
    onOpened: (replica) => {
      fences.look(replica);
      keeper.tend(replica);
    },
  });
  opening.defer(() => broken.close());
  const tests = new TestKeeper({ failovers, replicas, keeper, alerts, clock, diverged });
  opening.defer(() => tests.close());
  const space = new SpaceWatch({ dataDirectory, clock, alerts });
  opening.defer(() => space.close());
}

function tellingOf(
  o: ConstructorParameters<typeof PlanTeller>[0],
  opening: AsyncDisposableStack,
): PlanTeller {
  const plans = new PlanTeller(o);
  opening.defer(() => plans.close());
  return plans;
}

/** From now on other sites may call. */
async function openToPeers(
  ground: Ground,
  o: Omit<Works, 'receiver' | 'peerServer'> & { readonly home: HomeRights; readonly rights: OfferedRights },
  opening: AsyncDisposableStack,
): Promise<Pick<Works, 'receiver' | 'peerServer'>> {
  const { tools, identity, settings } = ground;
  const receiver = receiverOf({ ...ground, ...tools, ...o });
  const peerServer = await PeerServer.listen({
    ...{ ...settings.peer, ...tools, identity, peers: ground.peers, pairing: o.pairing },
    upload: receiver.upload,
    calls: { ...receiver.calls, ...o.rights.calls, ...o.votes.calls, ...o.plans.calls },
  });
  opening.defer(() => peerServer.close());
  return { receiver, peerServer };
}
