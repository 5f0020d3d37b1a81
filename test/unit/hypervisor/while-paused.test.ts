import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { MachineEvent, MachineState } from '../../../src/hypervisor/index.ts';
import { type PausedMachine, type PauseWatch, whilePaused } from '../../../src/hypervisor/while-paused.ts';
import { libFailure } from '../../../src/lib/errors.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const LIMIT_MS = 1_000;

/** What happened, in order, to machines that do as they are told after `delayMs`, or as `pause` and `resume` say. */
class Machine implements PausedMachine {
  readonly #name: string;
  readonly #log: string[];
  readonly #listeners = new Set<(event: MachineEvent) => void>();
  current: MachineState = 'running';
  onPause: () => Promise<void> = async () => undefined;
  onResume: () => Promise<void> = async () => undefined;

  constructor(name: string, log: string[]) {
    this.#name = name;
    this.#log = log;
  }

  async state(): Promise<MachineState> {
    return this.current;
  }

  async pause(): Promise<void> {
    this.#log.push(`stop ${this.#name}`);
    await this.onPause();
    this.#log.push(`${this.#name} stands`);
  }

  async resume(): Promise<void> {
    this.#log.push(`cont ${this.#name}`);
    await this.onResume();
    this.#log.push(`${this.#name} runs`);
  }

  onEvent(listener: (event: MachineEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  tell(name: string): void {
    for (const listener of this.#listeners) listener({ name, data: {} });
  }
}

function world(o: { guard?: Partial<PauseWatch> } = {}) {
  const log: string[] = [];
  const clock = new FakeClock();
  const machines = ['a', 'b', 'c'].map((name) => new Machine(name, log));
  const guard: PauseWatch = {
    isAlive: true,
    arm: () => void log.push('armed'),
    release: async () => void log.push('released'),
    continueAll: () => void log.push('left to the guard'),
    ...o.guard,
  };
  const run = (work: () => Promise<void> = async () => void log.push('work')) =>
    whilePaused({ machines, limitMs: LIMIT_MS, clock, guard: async () => guard, work });
  return { log, clock, machines, run };
}

const refused = () => Promise.reject(libFailure('CANCELLED', 'it will not'));
const never = () => new Promise<void>(() => undefined);

describe('S0.28 whilePaused', () => {
  test('S0.28 no work before the last machine stands, none runs before the work has ended', async () => {
    const { log, machines, run, clock } = world();
    const [, slow] = machines;
    const stands = Promise.withResolvers<void>();
    const ended = Promise.withResolvers<void>();
    slow!.onPause = () => stands.promise;
    const done = run(async () => {
      log.push('work');
      await ended.promise;
      log.push('worked');
    });
    await clock.turn(100);
    assert.deepEqual(log, ['armed', 'stop a', 'stop b', 'stop c', 'a stands', 'c stands']);
    stands.resolve();
    await clock.turn(100);
    assert.deepEqual(log.slice(6), ['b stands', 'work']);
    ended.resolve();
    const report = await done;
    assert.deepEqual(log.slice(8, 12), ['worked', 'cont a', 'cont b', 'cont c']);
    assert.equal(log.at(-1), 'released');
    assert.deepEqual([report.together, report.pausedMs], [true, 200]);
    assert.equal(clock.pending, 0);
  });

  test('S0.28 a machine that refuses to stop: all are continued, nothing is done', async () => {
    const { log, machines, run } = world();
    machines[1]!.onPause = refused;
    const report = await run();
    assert.equal(report.together, false);
    assert.match(report.reason!, /could not be stopped: it will not/);
    assert.ok(!log.includes('work'));
    for (const name of 'abc') assert.ok(log.includes(`${name} runs`), name);
    assert.equal(log.at(-1), 'released');
  });

  test('S0.28 a machine that hangs: at the limit all are continued, and the guard goes on with it', async () => {
    const { log, machines, run, clock } = world();
    machines[2]!.onPause = never;
    machines[2]!.onResume = never;
    const done = run();
    await clock.turn(LIMIT_MS - 1);
    assert.ok(!log.includes('cont a'));
    await clock.turn(1);
    assert.deepEqual(log.slice(-5), ['cont a', 'cont b', 'cont c', 'a runs', 'b runs']);
    await clock.turn(2_000);
    const report = await done;
    assert.deepEqual([report.together, log.at(-1)], [false, 'left to the guard']);
    assert.match(report.reason!, /more than 1000 ms/);
    assert.ok(!log.includes('work'));
    assert.equal(clock.pending, 0);
  });

  test('S0.28 a machine that stands too late is not worked upon', async () => {
    const { log, machines, run, clock } = world();
    const late = Promise.withResolvers<void>();
    machines[0]!.onPause = () => late.promise;
    const done = run();
    await clock.turn(LIMIT_MS);
    late.resolve();
    const report = await done;
    await clock.turn(0);
    assert.equal(report.together, false);
    assert.ok(!log.includes('work'));
  });

  test('S0.28 work that hangs is left behind at the limit', async () => {
    const { log, run, clock } = world();
    const done = run(never);
    await clock.turn(LIMIT_MS);
    assert.equal((await done).together, false);
    assert.equal(log.at(-1), 'released');
  });

  test('S0.28 a machine that somebody continues meanwhile: it was no common instant', async () => {
    const { machines, run } = world();
    const report = await run(async () => machines[1]!.tell('RESUME'));
    assert.equal(report.together, false);
    assert.match(report.reason!, /somebody else/);
  });

  test('S0.28 a machine that a person has paused is neither stopped nor continued', async () => {
    const { log, machines, run } = world();
    machines[1]!.current = 'paused';
    const report = await run();
    assert.deepEqual([report.together, log.filter((line) => line.includes('b'))], [true, []]);
    const woken = world();
    woken.machines[1]!.current = 'paused';
    assert.equal((await woken.run(async () => woken.machines[1]!.tell('RESUME'))).together, false);
  });

  test('S0.28 without a guard no machine is stopped; a lost one makes the instant uncertain', async () => {
    const { log, machines, clock } = world();
    const report = await whilePaused({
      ...{ machines, limitMs: LIMIT_MS, clock, guard: refused },
      work: async () => void log.push('work'),
    });
    assert.deepEqual([report.together, log], [false, []]);
    assert.match(report.reason!, /nobody would continue/);
    assert.equal((await world({ guard: { isAlive: false } }).run()).together, false);
  });
});
