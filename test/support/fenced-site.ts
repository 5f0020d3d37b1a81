import assert from 'node:assert/strict';
import { dirname, join } from 'node:path';
import type { AlertSink } from '../../src/control/base/alerts.ts';
import { EventHub } from '../../src/control/base/event-hub.ts';
import { Machines } from '../../src/control/machines/machines.ts';
import type { StoredTrigger } from '../../src/control/machines/trigger-tokens.ts';
import type { DivergedBranch } from '../../src/control/replicas/diverged-branch.ts';
import { DivergedBranches } from '../../src/control/replicas/diverged-branches.ts';
import { Generations } from '../../src/control/replicas/generations.ts';
import { branchNetworks } from '../../src/failover/index.ts';
import { QemuHypervisor } from '../../src/hypervisor/index.ts';
import { systemClock } from '../../src/lib/clock.ts';
import type { FileSystem } from '../../src/lib/files.ts';
import { silentLog } from '../../src/lib/log.ts';
import { nodeFiles } from '../../src/lib/node-files.ts';
import { newId, systemRandom } from '../../src/lib/random.ts';
import { createBranch, type Replicas } from '../../src/replica/index.ts';
import { isUnseen, type ProtectedMachine, type ReplicationTarget } from '../../src/replication/index.ts';
import { FakeImages, ImageLocks } from './fake-images.ts';
import { type SeedMachine, seedSites } from './seed-sites.ts';
import type { CleanUp } from './temporary.ts';

/** A site that another one has fenced, as a process that has just started opens it: its machine is a branch that diverged. */
export interface FencedSite {
  readonly machines: Machines;
  readonly diverged: DivergedBranches;
  readonly generations: Generations;
  readonly locks: ImageLocks;
  readonly machine: ProtectedMachine;
  readonly machineId: string;
  /** What it has written above the last copy is in a layer of its own. */
  readonly box: SeedMachine;
  readonly ownSiteId: string;
  /** The site that has brought it up. */
  readonly claimSiteId: string;
  /** Alerts that stand, by key. */
  readonly alerts: Map<string, string>;
  readonly tokens: StoredTrigger[];
  branch(): Promise<DivergedBranch>;
  /** A test of the branch as a job makes it: its record, and its layers. */
  makeTest(branch: DivergedBranch): Promise<string>;
}

export async function fencedSite(
  t: CleanUp,
  files: FileSystem = nodeFiles,
  replicas: Pick<Replicas, 'get' | 'broken'> = { get: () => undefined, broken: [] },
): Promise<FencedSite> {
  const { directory, addMachine, target, origin, zones } = await seedSites(t);
  const box = await addMachine({ seed: false });
  await box.machine.cut('crash');
  await box.machine.replicate(target);
  await box.write(0);
  await box.machine.right.hear({ epoch: 2, siteId: target.siteId });
  const { siteId } = origin;
  const { machineId } = box.machine.record;
  const [locks, alerts] = [new ImageLocks(), new Map<string, string>()];
  const tokens: StoredTrigger[] = [];
  const tools = { files, clock: systemClock, random: systemRandom, log: silentLog, zones };
  const images = new FakeImages({ files, locks });
  const dataDirectory = join(directory, 'p');
  const alertSink: AlertSink = {
    raise: (key, _severity, { code }) => void alerts.set(key, code),
    clear: (key) => void alerts.delete(key),
  };
  const machines = await Machines.open({
    ...{
      ...tools,
      images,
      siteId,
      dataDirectory,
      networks: branchNetworks,
      beforeStart: async () => undefined,
    },
    hypervisor: new QemuHypervisor({ clock: systemClock }),
    signer: { keyId: 'test', sign: () => Buffer.alloc(64) },
    loop: {
      ...{ ...tools, events: new EventHub(), audit: { note: () => undefined } },
      spaceAt: async () => ({ freeBytes: 2 ** 40, totalBytes: 2 ** 41 }),
      alerts: alertSink,
      identities: { look: async () => undefined, forget: () => undefined },
      target: (id) => ({ siteId: id }) as ReplicationTarget,
    },
  });
  t.after(() => machines.close());
  const olderCopies = { list: () => [] };
  const generations = new Generations({ files, dataDirectory, machines, replicas, olderCopies });
  const groups = { of: () => undefined };
  const ground = { files, images, siteId, dataDirectory, machines, replicas, groups, generations };
  const failovers = { recover: async () => undefined };
  const clearMachine = (id: string) => {
    for (const key of alerts.keys()) if (key.includes(id)) alerts.delete(key);
  };
  const diverged = await DivergedBranches.open({
    ...{ ...ground, failovers, alerts: { ...alertSink, clearMachine } },
    triggerTokens: {
      remove: async (isMeant) => {
        for (const token of tokens.filter(isMeant)) tokens.splice(tokens.indexOf(token), 1);
      },
    },
  });
  const { machine } = machines.get(machineId)!;
  return {
    ...{ machines, diverged, generations, locks, machine, machineId, box, alerts, tokens },
    ...{ ownSiteId: siteId, claimSiteId: target.siteId },
    branch: async () => {
      const [only, second] = await diverged.list(machineId);
      assert.ok(only && !second);
      return only;
    },
    makeTest: async (branch) => {
      const branchId = newId(systemClock, systemRandom);
      const about = { branchId, pointId: branch.branchId, purpose: 'test', createdAtMs: 1 } as const;
      await createBranch(files, branch, about);
      return branchId;
    },
  };
}

/** The branch of a failover that becomes the machine here again, beside what it was before; to be called by the adoption. */
export async function adoptedAgain({ machine, machineId, machines }: FencedSite): Promise<ProtectedMachine> {
  // As its loop does.
  if (isUnseen(machine.presence)) await machine.attach();
  const { configuration, disks, sockets } = machine.record;
  return machines.adopting.create({
    ...{ machineId, configuration, networks: {}, branchId: 'b'.repeat(26), pointId: 'p'.repeat(26) },
    claim: { epoch: 5, siteId: 'here' },
    runDirectory: join(dirname(sockets.qmpPath), 'adopted'),
    disks: disks.map(({ diskId, sizeBytes }) => ({
      ...{ diskId, sizeBytes },
      chain: [{ path: join(dirname(machine.layout.directory), `${diskId}.raw`), format: 'raw' as const }],
    })),
  });
}
