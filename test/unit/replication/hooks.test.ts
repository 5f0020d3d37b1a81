import assert from 'node:assert/strict';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { Standstill } from '../../../src/hypervisor/index.ts';
import { runInGuest } from '../../../src/hypervisor/qemu/guest-command.ts';
import { whileFrozen } from '../../../src/hypervisor/qemu/quiesce.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import type { CopyType, Hooks } from '../../../src/recovery-point/index.ts';
import { OwedHooks } from '../../../src/replication/owed-hooks.ts';
import { quiesced } from '../../../src/replication/quiesce.ts';
import { type AgentScript, errorReply, FakeGuestAgent, reply } from '../../support/fake-guest-agent.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

const clock = systemClock;
const LIMIT_MS = 2000;

/** What a program of the fake guest does. */
type Program = { exit?: number; prints?: string | Buffer } | 'hangs' | 'is missing' | 'kills the agent';

/** A guest whose agent runs programs by their names, and everything that was done to it, in order. */
async function guest(t: TestContext, programs: Readonly<Record<string, Program>>, script?: AgentScript) {
  const done: string[] = [];
  const running: Program[] = [];
  let isDead = false;
  const agent = await FakeGuestAgent.start(t, async (command, fake) => {
    if (isDead) return 'silence';
    const scripted = await script?.(command, fake);
    if (scripted !== undefined) return scripted;
    const { execute, arguments: args } = command;
    if (execute === 'guest-fsfreeze-freeze') done.push('freeze');
    if (execute === 'guest-fsfreeze-thaw' && fake.frozen) done.push('thaw');
    if (execute === 'guest-exec') {
      const path = String(args.path);
      const program = programs[path] ?? {};
      if (program === 'is missing')
        return errorReply('GenericError', `Failed to execute child process "${path}"`);
      done.push(path === '/bin/sh' ? `sh ${(args.arg as string[]).join(' ')}` : path);
      if (program === 'kills the agent') {
        isDead = true;
        return 'silence';
      }
      return reply({ pid: running.push(program) });
    }
    if (execute !== 'guest-exec-status') return undefined;
    const program = running[Number(args.pid) - 1]!;
    if (program === 'hangs') return reply({ exited: false });
    const { exit = 0, prints = '' } = program as Exclude<Program, string>;
    return reply({ exited: true, exitcode: exit, 'out-data': Buffer.from(prints).toString('base64') });
  });
  const path = join(await temporaryDirectory(t), 'hooks.json');
  const open = () => OwedHooks.open(nodeFiles, path, silentLog);
  const owed = await open();
  const watchAgent = () => ({ hasChanged: async () => false, close: () => undefined });
  const machine = {
    standstill: async (): Promise<Standstill | undefined> => undefined,
    whileFrozen: <T>(limitMs: number, work: () => Promise<T>) =>
      whileFrozen({ agentPath: agent.path, watchAgent, limitMs, clock, work }),
    runInGuest: (command: Parameters<typeof runInGuest>[1]) => runInGuest(agent.path, command, clock),
  };
  const copy = (type: Partial<CopyType> = {}, work?: () => Promise<void>) =>
    quiesced({
      ...{ running: machine, cutId: 'c1', freezeLimitMs: LIMIT_MS, owed, clock },
      type: { name: 'own', aim: 'application', hooks: ALL, ...type },
      work: async () => {
        done.push('cut');
        await work?.();
      },
    });
  return {
    ...{ agent, done, owed, open, machine, copy },
    revive: () => {
      isDead = false;
    },
  };
}

function program(command: string, limitMs = LIMIT_MS) {
  return { command, arguments: [], limitMs };
}

const ALL: Hooks = { before: program('before'), after: program('after'), onFailure: program('alarm') };

test('S0.6 hooks run before the freeze and after the thaw, and none for failure where nothing failed', async (t) => {
  const { copy, done, owed } = await guest(t, { before: { prints: 'flushed\n' } });
  const { consistency, degraded, hooks, frozenMs } = await copy();
  assert.deepEqual(done, ['before', 'freeze', 'cut', 'thaw', 'after']);
  assert.deepEqual([consistency, degraded], ['application', undefined]);
  assert.ok(frozenMs! <= LIMIT_MS);
  assert.deepEqual(
    hooks!.map(({ hook, exitCode, output, failure }) => ({ hook, exitCode, output, failure })),
    [
      { hook: 'before', exitCode: 0, output: 'flushed\n', failure: undefined },
      { hook: 'after', exitCode: 0, output: '', failure: undefined },
    ],
  );
  assert.equal(owed.exist, false);
});

test('S0.6 a hook before the freeze that fails leaves a crash-consistent copy with the reason, and the others run', async (t) => {
  const { copy, done } = await guest(t, { before: { exit: 3, prints: 'the database is busy' } });
  const { consistency, degraded } = await copy();
  assert.deepEqual(done, ['before', 'cut', 'after', 'alarm'], 'nothing is frozen for it');
  assert.equal(consistency, 'crash');
  assert.match(degraded!, /before hook failed: it ended with exit code 3: the database is busy/);
});

test('S0.6 a hook that hangs is ended at its limit, and the copy is made', async (t) => {
  const { copy, done } = await guest(t, { before: 'hangs' });
  const { consistency, degraded } = await copy({ hooks: { ...ALL, before: program('before', 150) } });
  assert.deepEqual(done, ['before', 'sh -c kill -9 "$0" 1', 'cut', 'after', 'alarm']);
  assert.equal(consistency, 'crash');
  assert.match(degraded!, /before still runs in the guest after 150 ms/);
});

test('S0.6 a hook that prints megabytes keeps its exit code and the beginning of what it said', async (t) => {
  const { copy } = await guest(t, {
    before: { prints: Buffer.alloc(9_000_000, 'x') },
    after: { prints: 'y'.repeat(5000) },
  });
  const { consistency, hooks } = await copy();
  assert.equal(consistency, 'application');
  for (const { output } of hooks!) assert.match(output!, /^[xy]{4096}\n\[cut off\]$/);
});

test('S0.6 a reason is as short as a statement wants it, whatever the guest says', async (t) => {
  const { copy } = await guest(t, {}, ({ execute }) =>
    execute === 'guest-fsfreeze-freeze' ? errorReply('GenericError', 'no '.repeat(3000)) : undefined,
  );
  const { degraded } = await copy({ hooks: {} });
  assert.ok(degraded!.length <= 1000 && degraded!.endsWith(' …'), degraded);
});

test('S0.6 a hook that is not there has not begun: what undoes it does not run', async (t) => {
  const { copy, done, owed } = await guest(t, { before: 'is missing' });
  const { degraded } = await copy();
  assert.deepEqual(done, ['cut', 'alarm']);
  assert.match(degraded!, /before hook failed: guest-exec: Failed to execute/);
  assert.equal(owed.exist, false);
});

test('S0.6 an agent that dies with the first hook: the copy is made, and what is owed runs when the agent is back', async (t) => {
  const { copy, done, owed, open, machine, revive } = await guest(t, { before: 'kills the agent' });
  const { consistency } = await copy({
    hooks: { before: program('before', 100), after: program('after', 100), onFailure: program('alarm', 100) },
  });
  assert.equal(consistency, 'crash');
  assert.deepEqual(done, ['before', 'cut']);
  assert.equal(owed.exist, true);
  const next = await copy();
  assert.match(next.degraded!, /hooks of an interrupted copy could not be run/);
  assert.deepEqual(done, ['before', 'cut', 'cut']);
  // Another process of the site finds what is owed.
  const later = await open();
  revive();
  assert.equal(await later.settle(machine), undefined);
  assert.deepEqual(done, ['before', 'cut', 'cut', 'after', 'alarm']);
  assert.equal((await open()).exist, false);
  assert.equal(await later.settle(machine), undefined, 'and only once');
  assert.equal(done.length, 5);
});

test('S0.6 a guest that stands still is asked nothing: it would freeze when it goes on and nobody waits for it', async (t) => {
  const { copy, done, owed, machine } = await guest(t, {});
  machine.standstill = async () => ({ why: 'no-space', deviceNames: [] });
  for (const type of [{}, { hooks: {} }]) {
    const { consistency, degraded } = await copy(type);
    assert.deepEqual([consistency, degraded?.startsWith('the guest stands still')], ['crash', true]);
  }
  assert.deepEqual(done, ['cut', 'cut']);
  assert.equal(owed.exist, false);
});

test('S0.6 a freeze that fails costs the consistency, and the hook for failure runs last', async (t) => {
  const { copy, done } = await guest(t, {}, ({ execute }) =>
    execute === 'guest-fsfreeze-freeze' ? errorReply('GenericError', 'no') : undefined,
  );
  const { consistency, degraded } = await copy();
  assert.deepEqual(done, ['before', 'cut', 'after', 'alarm']);
  assert.deepEqual([consistency, degraded?.startsWith('the guest was not frozen')], ['crash', true]);
});

test('S0.6 a cut that takes longer than the freeze may last is crash-consistent; hooks do not count against the limit', async (t) => {
  const { copy, done } = await guest(t, {});
  const { consistency, degraded } = await copy({}, async () => {
    while (!done.includes('thaw')) await new Promise((resolve) => setImmediate(resolve));
  });
  assert.deepEqual(done, ['before', 'freeze', 'cut', 'thaw', 'after', 'alarm']);
  assert.equal(consistency, 'crash');
  assert.match(degraded!, /thawed before the cut had ended \(limit\)/);
});

test('S0.6 a cut that fails is told only after the guest has been left in order', async (t) => {
  const { copy, done, owed } = await guest(t, {});
  const failure = new Error('the disks could not be cut');
  await assert.rejects(
    copy({}, () => Promise.reject(failure)),
    failure,
  );
  assert.deepEqual(done, ['before', 'freeze', 'cut', 'thaw', 'after', 'alarm']);
  assert.equal(owed.exist, false);
});

test('S0.6 a hook after the thaw that fails takes nothing from a copy that is sealed, and is followed by the one for failure', async (t) => {
  const { copy, done } = await guest(t, { after: { exit: 1 } });
  const { consistency, degraded, hooks } = await copy();
  assert.deepEqual(done, ['before', 'freeze', 'cut', 'thaw', 'after', 'alarm']);
  assert.deepEqual([consistency, degraded], ['application', undefined]);
  assert.equal(hooks![1]!.failure, 'it ended with exit code 1');
});

test('S0.5 a type whose aim is crash has its hooks and no freeze; without hooks the guest hears nothing', async (t) => {
  const { copy, done, agent } = await guest(t, {});
  await copy({ aim: 'crash', hooks: {} });
  assert.deepEqual([done, agent.commands], [['cut'], []]);
  const { consistency } = await copy({ aim: 'crash' });
  assert.deepEqual(done, ['cut', 'before', 'cut', 'after']);
  assert.equal(consistency, 'crash');
});

test('S0.6 what a process owes that was killed between two hooks is on disk before the first one runs', async (t) => {
  let seen: boolean | undefined;
  const it = await guest(t, {}, async ({ execute, arguments: args }) => {
    if (execute === 'guest-exec' && args.path === 'before') seen = (await it.open()).exist;
    return undefined;
  });
  await it.copy();
  assert.equal(seen, true);
  assert.equal((await it.open()).exist, false);
});
