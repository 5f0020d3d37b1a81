/** The table of branch phases in docs/failover.md against what is stored of branches that are booted, ended and found again. */
import assert from 'node:assert/strict';
import { access, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { BRANCH_PHASES, type BranchAct } from '../../../src/failover/branch-phases.ts';
import { endAndRemove, recoverBranch } from '../../../src/failover/branch-recovery.ts';
import { storeState } from '../../../src/failover/branch-state.ts';
import { recordEnd } from '../../../src/failover/live-branches.ts';
import { prepareBranch } from '../../../src/failover/prepared.ts';
import { probeAgain } from '../../../src/failover/probe-again.ts';
import type { BranchPhase } from '../../../src/failover/records.ts';
import { stopBranch } from '../../../src/failover/stop-branch.ts';
import { branchSite, FAILS, PASSES } from '../../support/branch-site.ts';
import { waysOf } from '../../support/state-ways.ts';
import type { CleanUp } from '../../support/temporary.ts';

type Site = Awaited<ReturnType<typeof branchSite>>;
const NOTHING_IS_FULL = /^$/;
const ACTS: Readonly<Record<BranchPhase | 'none', BranchAct>> = {
  created: 'make',
  network: 'plug in',
  started: 'start',
  probed: 'come up',
  failed: 'fail',
  stopped: 'end',
  prepared: 'make ready',
  none: 'remove',
};

/** Walks along with what a branch becomes. */
class Walk {
  readonly ways = new Set<string>();
  readonly #site: Site;
  readonly #at = new Map<string, BranchPhase | 'none'>();

  constructor(site: Site) {
    this.#site = site;
  }

  /** Does something with branches, and looks at what they have become by that. */
  async does(work: () => Promise<unknown>, by?: BranchAct): Promise<void> {
    const from = this.#site.stored.length;
    await work();
    for (const { branchId, phase } of this.#site.stored.slice(from)) this.#go(branchId, phase, by);
    for (const [branchId, phase] of this.#at) {
      if (phase !== 'none' && !(await this.#isThere(branchId))) this.#go(branchId, 'none', by);
    }
  }

  #go(branchId: string, phase: BranchPhase | 'none', by?: BranchAct): void {
    const before = this.#at.get(branchId) ?? 'none';
    // Its guest has ended, and what is known of it stays.
    const act = by ?? (before === 'failed' && phase === 'failed' ? 'end' : ACTS[phase]);
    this.ways.add(`${before} –${act}→ ${phase}`);
    this.#at.set(branchId, phase);
  }

  async #isThere(branchId: string): Promise<boolean> {
    try {
      await access(this.#site.replica.layout.branch(branchId));
      return true;
    } catch {
      return false;
    }
  }

  /** As if it had come to be so: what is looked at is the way out of it. */
  async is(phase: BranchPhase, o: { readonly keep: boolean; readonly hasRun: boolean }): Promise<void> {
    const { tools, replica, branch } = this.#site;
    await mkdir(replica.layout.branch(branch.branchId), { recursive: true });
    await storeState(tools, replica, branch.branchId, { phase, ...o });
    this.#at.set(branch.branchId, phase);
  }
}

async function walked(
  t: CleanUp,
  purpose: 'test' | 'failover',
  go: (walk: Walk, site: Site) => Promise<void>,
): Promise<ReadonlySet<string>> {
  const site = await branchSite(t, purpose, NOTHING_IS_FULL);
  const walk = new Walk(site);
  await go(walk, site);
  await site.live.end(site.branch.branchId);
  return walk.ways;
}

/** Whatever a process that was killed has left, and whose machine has ended, is looked at by the next one. */
async function recoveries(walk: Walk, { tools, live, replica, branch }: Site): Promise<void> {
  const phases = ['created', 'network', 'started', 'probed', 'failed', 'stopped', 'prepared'] as const;
  for (const purpose of ['test', 'failover', 'prepared'] as const) {
    for (const phase of phases) {
      // Prepared is what was prepared, and that is never kept running.
      if (
        (purpose === 'prepared') !== (phase === 'prepared') &&
        ['probed', 'failed', 'stopped', 'prepared'].includes(phase)
      )
        continue;
      for (const keep of purpose === 'test' ? [false, true] : [true]) {
        // What failed or has ended is there because it was kept.
        if (!keep && (phase === 'failed' || phase === 'stopped')) continue;
        const canHaveRun = purpose !== 'prepared' && (phase === 'network' || phase === 'started');
        for (const hasRun of canHaveRun ? [false, true] : [false]) {
          await walk.is(phase, { keep, hasRun });
          const about = { ...branch, purpose };
          await walk.does(() => recoverBranch({ tools, live }, replica, about), 'recover');
        }
      }
    }
  }
}

test('F4 F5 the table of branch phases in docs/failover.md is what becomes of branches, all of it', async (t) => {
  const ways = new Set<string>();
  const add = async (walk: Promise<ReadonlySet<string>>) => {
    for (const way of await walk) ways.add(way);
  };
  const { signal } = new AbortController();
  for (const keep of [false, true])
    for (const probes of [PASSES, FAILS])
      await add(walked(t, 'test', (walk, site) => walk.does(() => site.boot({ probes, keep, isNew: true }))));
  for (const purpose of ['test', 'failover'] as const) {
    await add(
      walked(t, purpose, async (walk, { boot, replica, branch }) => {
        await walk.is('created', { keep: true, hasRun: false });
        await walk.does(() => assert.rejects(boot({ probes: PASSES, signal: AbortSignal.abort() })));
        await walk.is('created', { keep: true, hasRun: false });
        await writeFile(join(replica.layout.branch(branch.branchId), 'changes.json'), 'no record');
        await walk.does(() => boot({ probes: PASSES }));
      }),
    );
  }
  await add(
    walked(t, 'failover', async (walk, { boot, tools, live, replica, branch, hypervisor }) => {
      const stop = () =>
        live.exclusively(branch.branchId, () =>
          stopBranch({ tools, live }, replica, branch, { graceMs: 10_000 }),
        );
      const ask = () => probeAgain({ tools, live }, replica, branch.branchId, PASSES, signal);
      hypervisor.isBroken = true;
      await walk.is('created', { keep: true, hasRun: false });
      await walk.does(() => boot({ probes: PASSES }));
      hypervisor.isBroken = false;
      await walk.does(() => boot({ probes: FAILS, hasRun: true }));
      await walk.does(() => boot({ probes: PASSES, hasRun: true }));
      await walk.does(ask);
      await walk.does(stop);
      await walk.does(() => boot({ probes: PASSES, hasRun: true }));
      // Nobody has recorded that it came up.
      await walk.is('started', { keep: true, hasRun: false });
      await walk.does(ask);
      await walk.is('started', { keep: true, hasRun: false });
      await walk.does(stop);
      await walk.does(() => endAndRemove({ tools, live }, replica, branch.branchId));
    }),
  );
  await add(
    walked(t, 'test', async (walk, { boot, tools, live, replica, branch }) => {
      await walk.is('created', { keep: true, hasRun: false });
      await walk.does(() => boot({ probes: FAILS, keep: true }));
      await walk.does(() => recordEnd(tools, replica, branch.branchId));
      await walk.does(() => probeAgain({ tools, live }, replica, branch.branchId, PASSES, signal));
    }),
  );
  await add(
    walked(t, 'test', async (walk, { tools, live, replica, branch }) => {
      for (const probes of [PASSES, FAILS]) {
        const options = { programs: [], probes, graceMs: 10_000 };
        await walk.does(() => prepareBranch({ tools, live }, replica, branch.pointId, options));
      }
      await walk.is('prepared', { keep: true, hasRun: false });
      await walk.does(() => endAndRemove({ tools, live }, replica, branch.branchId));
    }),
  );
  await add(walked(t, 'failover', recoveries));
  assert.deepEqual([...ways].sort(), waysOf(BRANCH_PHASES));
});
