import assert from 'node:assert/strict';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { FileSystem } from '../../src/lib/files.ts';
import { SeedFile } from '../../src/replica/index.ts';
import {
  dyingFiles,
  readChain,
  type SeedMachine,
  type SeedSites,
  seedSitesOn,
} from '../support/seed-sites.ts';
import { chooseCutMode, SimDisk } from './sim-disk.ts';
import { SimFiles } from './sim-files.ts';
import { SimRandom } from './sim-random.ts';

const DIRECTORY = '/data';
/** Each cut is at another step, so that a run of a few hundred steps is met everywhere in some of them. */
const STRIDE = 7;

interface World {
  readonly sites: SeedSites;
  readonly box: SeedMachine;
  readonly protectedDisk: SimDisk;
  readonly recoveryDisk: SimDisk;
}

async function world(): Promise<World> {
  const protectedDisk = new SimDisk();
  const recoveryDisk = new SimDisk();
  const protectedFiles = new SimFiles(protectedDisk);
  const recoveryFiles = new SimFiles(recoveryDisk);
  for (const files of [protectedFiles, recoveryFiles]) {
    await files.makeDirectory(DIRECTORY);
    await files.syncDirectory('/');
  }
  const sites = await seedSitesOn({ directory: DIRECTORY, protectedFiles, recoveryFiles });
  const box = await sites.addMachine();
  await box.machine.cut('crash');
  return { sites, box, protectedDisk, recoveryDisk };
}

async function send(machine: SeedMachine['machine'], target: SeedSites['target']): Promise<void> {
  while ((await machine.replicate(target)).kind !== 'nothing');
}

/** Carries the only seed of the medium to the recovery site. */
async function carry(from: SimDisk, to: SimDisk): Promise<string> {
  const source = new SimFiles(from);
  const target = new SimFiles(to);
  const medium = join(DIRECTORY, 'medium');
  const [name] = (await source.list(medium)) ?? [];
  const bytes = Buffer.alloc((await source.sizeOf(join(medium, name!)))!);
  await (await source.open(join(medium, name!), 'read')).read(bytes, 0);
  await target.makeDirectory(medium);
  const path = join(medium, 'carried.wsseed');
  const file = await target.open(path, 'create');
  await file.write(bytes, 0);
  await file.sync();
  await target.syncDirectory(medium);
  return path;
}

/** Runs `act` on copies of a disk until it comes to its end; the power goes at another step in each, and `check` looks after it. */
async function cutEverywhere(
  t: TestContext,
  disk: SimDisk,
  act: (files: FileSystem) => Promise<void>,
  check: (files: FileSystem, disk: SimDisk) => Promise<void>,
): Promise<void> {
  const random = new SimRandom(t.name.length, 1);
  let cuts = 0;
  for (let step = random.below(STRIDE); ; step += 1 + random.below(STRIDE)) {
    const copy = disk.copy();
    const { files, hasDied } = dyingFiles(step, new SimFiles(copy));
    let said: unknown;
    await act(files).catch((error: unknown) => {
      said = error;
    });
    if (!hasDied() && said !== undefined) throw said;
    copy.crash(random, chooseCutMode(random));
    await check(new SimFiles(copy), copy);
    if (!hasDied()) break;
    cuts += 1;
  }
  t.diagnostic(`${cuts} power cuts`);
  assert.ok(cuts >= 10, `${cuts} power cuts`);
}

test('S0.27 a power cut at any step of an import leaves points that await their seed, or whole ones', async (t) => {
  const { sites, box, protectedDisk, recoveryDisk } = await world();
  const { machine } = box;
  await machine.exportSeed(() => sites.target, sites.medium);
  await new SimFiles(protectedDisk).removeDirectory(sites.medium);
  await box.write(0, 8192);
  await machine.cut('crash');
  await send(machine, sites.target);
  await new SimFiles(protectedDisk).makeDirectory(sites.medium);
  await machine.exportSeed(() => sites.target, sites.medium);
  await box.write(65536);
  await machine.cut('crash');
  await send(machine, sites.target);
  const content = await box.content();
  const path = await carry(protectedDisk, recoveryDisk);
  const { machineId } = machine.record;
  const importInto = async (files: FileSystem) => {
    const replica = await sites.openReplica(machineId, files);
    await using seed = await SeedFile.open(files, path);
    await replica.seeding.import(seed);
  };
  await cutEverywhere(t, recoveryDisk, importInto, async (files) => {
    const left = await sites.openReplica(machineId, files);
    const isWhole = left.describe().newest?.level === 'verified';
    assert.deepEqual(
      left.points.map(({ statement }) => statement.sequence),
      isWhole ? [2, 3] : [1, 2, 3],
    );
    await importInto(files);
    const replica = await sites.openReplica(machineId, files);
    assert.equal(replica.describe().newest?.level, 'verified');
    const newest = replica.newest!.statement.pointId;
    assert.ok((await readChain(replica.chain(newest, 'system'), files)).equals(content));
  });
});

test('S0.27 a power cut at any step of an export leaves a whole seed, or none that is announced', async (t) => {
  const { sites, box, protectedDisk, recoveryDisk } = await world();
  await box.write(0, 8192);
  const { machineId } = box.machine.record;
  const exportTo = async (files: FileSystem) => {
    const machine = await box.reopen(files);
    await machine.exportSeed(() => sites.target, sites.medium);
  };
  await cutEverywhere(t, protectedDisk, exportTo, async (files, disk) => {
    const machine = await box.reopen(files);
    if (machine.target?.seed?.state === 'wanted') await exportTo(files);
    const recovery = recoveryDisk.copy();
    const replicas = await sites.openReplicas(new SimFiles(recovery));
    const resumed = await box.reopen(files);
    await resumed.cut('crash');
    await send(resumed, sites.targetOn(replicas));
    const path = await carry(disk, recovery);
    const replica = replicas.need(machineId);
    await using seed = await SeedFile.open(new SimFiles(recovery), path);
    assert.equal((await replica.seeding.import(seed)).kind, 'imported');
    const newest = replica.newest!.statement.pointId;
    const there = await readChain(replica.chain(newest, 'system'), new SimFiles(recovery));
    assert.ok(there.equals(await readChain(resumed.chain('system'), files)));
  });
});

test('S0.27 a power cut at any step of an announcement leaves nothing, or a point that awaits its seed', async (t) => {
  const { sites, box, protectedDisk, recoveryDisk } = await world();
  await box.machine.exportSeed(() => sites.target, sites.medium);
  const { machineId } = box.machine.record;
  const announceTo = async (files: FileSystem) => {
    const machine = await box.reopen(new SimFiles(protectedDisk.copy()));
    await send(machine, sites.targetOn(await sites.openReplicas(files)));
  };
  await cutEverywhere(t, recoveryDisk, announceTo, async (files, disk) => {
    await announceTo(files);
    const replica = await sites.openReplica(machineId, files);
    assert.equal(replica.describe().newest?.level, 'awaiting-seed');
    const path = await carry(protectedDisk, disk);
    await using seed = await SeedFile.open(files, path);
    assert.equal((await replica.seeding.import(seed)).kind, 'imported');
  });
});
