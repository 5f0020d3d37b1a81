/**
 * The demonstration of a recovery plan: a shop of three machines (database, application, web front end) that talk to each other, whose
 * site is lost, which come up at the other one by a plan, in order and with gates, take orders there, and come home by another run of
 * the same plan. Only what differs crosses the wire on the way home, and no order is lost by it.
 */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { PlanRun } from '../src/api/index.ts';
import { connectGuest } from '../src/hypervisor/index.ts';
import { sleep, systemClock } from '../src/lib/clock.ts';
import type { DemoSite } from './demo-site.ts';
import { type Ends, endProcess, pairedDemoSites } from './demo-sites.ts';
import { describeLabMachine } from './lab-machine.ts';
import { say } from './say.ts';
import { ADDRESSES, askShop, ShopNetwork, shopAnswers, TIERS, type Tier } from './shop-network.ts';

const BEHIND: Readonly<Partial<Record<Tier, string>>> = { app: ADDRESSES.db, web: ADDRESSES.app };
const MIB = 1024 * 1024;
const NEVER = new AbortController().signal;

/** Returns the exit code: 0 if everything that was promised held. */
export async function recoverShop(ends: Ends): Promise<number> {
  const directory = await mkdtemp(join(tmpdir(), 'ws-shop-'));
  ends.push(() => rm(directory, { recursive: true, force: true }));
  const network = new ShopNetwork();
  ends.push(() => network.remove());
  await network.make();
  const [alpha, beta] = await pairedDemoSites(directory, ends);
  ends.push(() => endMachines([alpha, beta]));

  say.chapter(
    'A shop of three machines at alpha: the web front end asks the application, which asks the database',
  );
  await Promise.all(TIERS.map((tier, index) => openTier(alpha, directory, network, tier, index)));
  await network.routeTo('alpha');
  say.line((await shopAnswers()).text);

  say.chapter('Protection, and a plan that both sites have');
  for (const tier of TIERS) await alpha.run(['vm', 'protect', tier, '--crash-every', '10s', '--no-wait']);
  const plan = join(directory, 'shop.yaml');
  await writeFile(plan, planOf(network));
  await alpha.run(['plan', 'put', plan]);
  await untilTold(beta);
  let placed = 0;
  const order = async () => {
    placed += 1;
    await askShop(placed);
  };
  for (let orders = 0; orders < 20; orders++) await order();
  for (const tier of TIERS) await alpha.run(['point', 'create', tier, '--wait']);
  const promised = placed;
  say.line(`${promised} orders are in points of the other site; more come in`);
  for (let orders = 0; orders < 10; orders++) await order();

  say.chapter('A rehearsal at beta, in isolation, while alpha goes on');
  const before = placed;
  const rehearsing = runOf(beta, ['--test']);
  for (let orders = 0; orders < 10; orders++) await order();
  const rehearsal = await rehearsing;
  const meanwhile = await askShop();
  say.line(`rehearsed in ${tookOf(rehearsal)}; alpha: ${meanwhile.text}`);

  say.chapter('Alpha is lost: SIGKILL to its machines and to its site process');
  await killed(alpha);
  await network.routeTo('beta');
  const lostAtMs = systemClock.monotonicMs();
  const unplanned = await runOf(beta, ['--unplanned', '--confirm-other-side-down']);
  const there = await shopAnswers();
  const downMs = systemClock.monotonicMs() - lostAtMs;
  say.line(`${there.text}; the shop was away for ${(downMs / 1000).toFixed(1)} s`);

  say.chapter('It stays at beta, takes orders there, and is replicated back to alpha');
  for (const tier of TIERS) await beta.run(['failover', 'adopt', tier]);
  placed = there.last;
  for (let orders = 0; orders < 15; orders++) await order();
  await alpha.serve();
  for (const tier of TIERS) await beta.run(['vm', 'protect', tier, '--crash-every', '10s']);
  const back = await Promise.all(TIERS.map((tier) => firstPoint(alpha, tier)));
  const crossed = back.reduce((sum, { receivedBytes }) => sum + receivedBytes, 0);
  const spared = back.reduce((sum, { olderBytes }) => sum + olderBytes, 0);
  say.line(`${inMib(crossed)} crossed the wire; ${inMib(spared)} were at alpha already`);

  say.chapter('Home again, by the same plan: handed over where it runs, taken over at alpha');
  for (let orders = 0; orders < 5; orders++) await order();
  await network.routeTo('alpha');
  const taking = runOf(alpha, ['--take', '--within', '5m']);
  const ceded = await runOf(beta, ['--cede']);
  const taken = await taking;
  const home = await shopAnswers();
  say.line(home.text);
  for (const tier of TIERS) await alpha.run(['failover', 'adopt', tier]);
  await order();
  const last = await askShop();

  const checks: readonly (readonly [string, boolean])[] = [
    [
      'in a rehearsal they asked each other, and the real ones went on undisturbed',
      rehearsal.verdict === 'done' && meanwhile.last === before + 10,
    ],
    ['three machines came up at beta by the plan', unplanned.verdict === 'done'],
    ['in order: database, application, web front end', isInOrder(unplanned, TIERS)],
    ['every order of before the points was there', there.last >= promised && there.orders >= promised],
    [
      'the machines talked to each other there, over the mapped network',
      there.text.startsWith('web < app < db:'),
    ],
    ['only the difference crossed the wire on the way back', crossed < spared / 4],
    [
      'they were handed over in the other order',
      ceded.verdict === 'done' && isInOrder(ceded, TIERS.toReversed()),
    ],
    ['they came up at alpha by the same plan', taken.verdict === 'done' && isInOrder(taken, TIERS)],
    ['no order was lost on the way home', home.last === placed - 1 && home.orders === there.orders + 20],
    ['the shop goes on', last.last === placed],
  ];
  console.log('\n  Report');
  console.log(`  away                  ${(downMs / 1000).toFixed(1)} s, of it the plan ${tookOf(unplanned)}`);
  console.log(
    `  way home              handed over in ${tookOf(ceded)}, all up ${tookOf(taken)} after the command`,
  );
  console.log(`  bytes back            ${inMib(crossed)} crossed, ${inMib(spared)} spared\n`);
  for (const [what, held] of checks) console.log(`  ${held ? '✔' : '✖'} ${what}`);
  console.log(`\n  ${say.elapsedSeconds().toFixed(0)} s in all`);
  return checks.every(([, held]) => held) ? 0 : 1;
}

/** Makes one machine, starts it, and tells its guest who it is; that is on its disk from then on. */
async function openTier(
  site: DemoSite,
  directory: string,
  network: ShopNetwork,
  tier: Tier,
  index: number,
): Promise<void> {
  const own = join(directory, tier);
  await mkdir(own);
  const mac = `52:54:00:77:01:0${index + 1}`;
  const bridge = network.bridges.alpha;
  const { descriptionPath } = await describeLabMachine(own, tier, { mac, bridge });
  await site.run(['vm', 'add', '--from', descriptionPath]);
  await site.run(['vm', 'start', tier]);
  const { qmpPath, agentPath } = (await site.machine(tier)).protected!;
  const address = `${ADDRESSES[tier]}/24`;
  const behind = BEHIND[tier];
  await inGuest({ qmpPath, ...(agentPath ? { agentPath } : {}) }, [
    `echo ${tier} > /data/hostname; echo ${address} > /data/network`,
    ...(behind ? [`echo ${behind} > /data/behind`] : []),
    'sync',
  ]);
  // It is that from its next boot on.
  await site.run(['vm', 'stop', tier]);
  await site.run(['vm', 'start', tier]);
}

/** As somebody would type it at the console of the guest, which is booting. */
async function inGuest(
  sockets: { readonly qmpPath: string; readonly agentPath?: string },
  lines: readonly string[],
): Promise<void> {
  await using guest = await connectGuest(sockets, { clock: systemClock, timeoutMs: 60_000 });
  const { exitCode, stderr } = await guest.exec('/bin/sh', ['-c', lines.join('\n')]);
  if (exitCode !== 0) throw new Error(`the guest could not be set up: ${stderr}`);
}

function planOf({ bridges }: ShopNetwork): string {
  return `plan: shop
description: database, application and web front end
networks:
  production:
    alpha: { kind: bridge, bridge: ${bridges.alpha} }
    beta: { kind: bridge, bridge: ${bridges.beta} }
machines:
  db:
    gates: [{ kind: tcp, host: ${ADDRESSES.db}, port: 80, limitMs: 60000 }]
  app:
    tier: 2
    gates: [{ kind: tcp, host: ${ADDRESSES.app}, port: 80, limitMs: 60000 }]
  web:
    tier: 3
    gates:
      - { kind: http, url: 'http://${ADDRESSES.web}/cgi-bin/tier', pattern: '^web < app < db: [0-9]+ orders', limitMs: 60000 }
`;
}

/** Nobody has put the plan there. */
async function untilTold(site: DemoSite): Promise<void> {
  while (((await site.run(['plan', 'list'])) as readonly unknown[]).length === 0)
    await sleep(systemClock, 200, NEVER);
}

async function runOf(site: DemoSite, how: readonly string[]): Promise<PlanRun> {
  const run = (await site.run(['plan', 'run', 'shop', ...how])) as PlanRun;
  for (const { machine, state, reason } of run.steps)
    if (state !== 'done') say.line(`${machine}: ${state} (${reason})`);
  return run;
}

function tookOf({ startedAtMs, endedAtMs = startedAtMs }: PlanRun): string {
  return `${((endedAtMs - startedAtMs) / 1000).toFixed(1)} s`;
}

/** Each machine had ended its step before the next one began. */
function isInOrder({ steps }: PlanRun, order: readonly Tier[]): boolean {
  const stepOf = (tier: Tier) => steps.find(({ machine }) => machine === tier);
  return order.every((tier, index) => {
    const next = order[index + 1];
    const [ended, began] = [stepOf(tier)?.endedAtMs, next && stepOf(next)?.beganAtMs];
    return next === undefined || (ended !== undefined && began !== undefined && ended <= began);
  });
}

async function firstPoint(site: DemoSite, tier: Tier) {
  const [{ receivedBytes = 0, olderBytes = 0 } = {}] = await site.points(tier);
  return { receivedBytes, olderBytes };
}

function inMib(bytes: number): string {
  return `${(bytes / MIB).toFixed(1)} MiB`;
}

async function killed(site: DemoSite): Promise<void> {
  const processes = (await site.machines()).flatMap((machine) => machine.protected?.presence.processId ?? []);
  for (const processId of processes) endProcess(processId);
  await site.end('SIGKILL');
}

/** Whatever runs at the end of the demonstration, however it ends. */
async function endMachines(sites: readonly DemoSite[]): Promise<void> {
  for (const site of sites) {
    for (const { name, protected: atHome, replica } of await site.machines()) {
      if (atHome && atHome.presence.state !== 'stopped') await site.run(['vm', 'stop', name, '--force']);
      if (replica?.right !== 'held') continue;
      for (const { branchId, running } of await site.branches(name))
        if (running) await site.run(['failover', 'cleanup', name, branchId, '--discard-writes']);
    }
  }
}
