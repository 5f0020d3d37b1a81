/** What a recovery plan means: order, what comes next, what is wrong with it. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import type { PlanDocument, PlanRun, RunStep } from '../../../src/api/index.ts';
import {
  changesAt,
  differenceOf,
  directionOf,
  estimateOf,
  fencingOf,
  findingsAt,
  findingsOf,
  forNicsOf,
  gatesAt,
  type HeldWhere,
  MOST_AT_ONCE,
  needsOf,
  networksAt,
  nextActs,
  programsOf,
  verdictOf,
  wavesOf,
} from '../../../src/plan/index.ts';

const SHOP: PlanDocument = {
  plan: 'shop',
  networks: { office: { berlin: { kind: 'bridge', bridge: 'br0' } } },
  machines: {
    web: { tier: 3, gates: [{ kind: 'tcp', host: '10.0.0.3', port: 80 }] },
    db: {},
    app: { tier: 2, approval: 'Is the licence server up?' },
    cache: { tier: 2, after: ['app'] },
  },
};

/** A run that has run a program around a machine, which failed. */
function hooked(run: PlanRun, around: string, when: 'before' | 'after'): PlanRun {
  const outcome = { when, index: 0, program: 'dns', outcome: 'failed', tookMs: 1 } as const;
  const steps = run.steps.map((step) => (step.machine === around ? { ...step, hooks: [outcome] } : step));
  return { ...run, steps };
}

/** Carries a plan out on paper: every machine that begins ends as `endOf` says. Returns the states and the order. */
function carriedOut(plan: PlanDocument, endOf: (machine: string) => 'done' | 'failed') {
  const needs = needsOf(plan);
  const states = new Map<string, RunStep['state']>();
  const order: string[] = [];
  for (let turns = 0; turns < 1000; turns++) {
    const { begin, block, isOver } = nextActs(needs, states);
    if (isOver) return { states, order };
    for (const { machine } of block) states.set(machine, 'blocked');
    for (const machine of begin) {
      order.push(machine);
      states.set(machine, endOf(machine));
    }
  }
  throw new Error('it does not end');
}

describe('a recovery plan', () => {
  it('F5 machines come up tier by tier and after those that they name; they are handed over the other way round', () => {
    assert.deepEqual(wavesOf(needsOf(SHOP)), [['db'], ['app'], ['cache'], ['web']]);
    assert.deepEqual(wavesOf(needsOf(SHOP, 'backward')), [['web'], ['cache'], ['app'], ['db']]);
    assert.deepEqual(carriedOut(SHOP, () => 'done').order, ['db', 'app', 'cache', 'web']);
  });

  it('F5 who needs what has not come up stays where it is, and all others go on', () => {
    const plan: PlanDocument = { ...SHOP, machines: { ...SHOP.machines, mail: {} } };
    const { states, order } = carriedOut(plan, (machine) => (machine === 'app' ? 'failed' : 'done'));
    assert.deepEqual(order, ['db', 'mail', 'app']);
    assert.deepEqual(Object.fromEntries(states), {
      ...{ db: 'done', mail: 'done', app: 'failed', cache: 'blocked', web: 'blocked' },
    });
    assert.equal(verdictOf([...states.values()].map((state) => ({ state }))), 'partly');
    assert.equal(verdictOf([{ state: 'failed' }, { state: 'blocked' }]), 'failed');
  });

  it('F5 nothing begins before what it waits for, nothing is forgotten, and every run ends', () => {
    const names = ['a', 'b', 'c', 'd', 'e', 'f'];
    const machine = fc.record(
      { tier: fc.integer({ min: 1, max: 3 }), after: fc.subarray(names) },
      { requiredKeys: [] },
    );
    const plans = fc.dictionary(fc.constantFrom(...names), machine, { minKeys: 1 });
    fc.assert(
      fc.property(plans, fc.subarray(names), (machines, failing) => {
        const plan = { plan: 'any', machines } as PlanDocument;
        const needs = needsOf(plan);
        const isSound = wavesOf(needs) !== undefined;
        const cycles = findingsOf(plan).filter(({ message }) =>
          /wait for each other|waits for itself/.test(message),
        );
        assert.equal(isSound, cycles.length === 0, JSON.stringify(findingsOf(plan)));
        if (!isSound) return;
        const { states, order } = carriedOut(plan, (name) => (failing.includes(name) ? 'failed' : 'done'));
        assert.equal(states.size, needs.size);
        for (const [at, name] of order.entries())
          for (const other of needs.get(name)!) {
            assert.ok(order.indexOf(other) < at && states.get(other) === 'done', `${name} before ${other}`);
          }
        for (const [name, state] of states) if (state === 'blocked') assert.ok(!order.includes(name));
      }),
    );
  });

  it('F5 what is wrong with it is said before anything is done', () => {
    const wrong: PlanDocument = {
      plan: 'shop',
      machines: { a: { after: ['b', 'nobody'] }, b: { tier: 2 }, c: { after: ['c'] } },
    };
    const said = findingsOf(wrong).map(({ message }) => message);
    assert.equal(said.length, 3, said.join('\n'));
    assert.match(said[0]!, /a waits for nobody, which is not in the plan/);
    assert.match(said[1]!, /c waits for itself/);
    assert.match(said[2]!, /each other: (a → b → a|b → a → b)/);
    assert.deepEqual(findingsOf(SHOP), []);
    const gate = { kind: 'sql', system: 'sqlite', query: 'select count(*) from orders' } as const;
    const [asked] = findingsOf({ plan: 'shop', machines: { db: { gates: [gate] } } });
    assert.match(asked!.message, /a gate of db: a query of SQLite without the path of its file/);

    const lan = { nicId: 'lan', network: 'office' };
    const known = { nics: [lan], hasAgent: false, isReady: true };
    const named = { ...SHOP, hooks: { after: [{ program: 'dns' }] } };
    const at = findingsAt(
      named,
      'berlin',
      (name) => (name === 'db' ? undefined : name === 'web' ? { ...known, isReady: false } : known),
      (program) => `there is no program ${program}`,
    );
    const messages = at.map(({ severity, message }) => `${severity} ${message}`).sort();
    assert.deepEqual(messages, [
      'error there is no program dns',
      'error this site has no machine db',
      'error web has no point here that could be brought up',
      'warning app has no gates and no guest agent: it counts as up at once',
      'warning cache has no gates and no guest agent: it counts as up at once',
    ]);
    assert.equal(
      findingsAt(
        SHOP,
        'hamburg',
        () => known,
        () => undefined,
      ).filter(({ message }) => /nothing says what is connected/.test(message)).length,
      4,
    );
  });

  it('F5 a planned move hands over where the machines are held and takes over where none is; one left in the middle goes on', () => {
    const held = (places: Readonly<Record<string, HeldWhere>>) => new Map(Object.entries(places));
    const run = (
      mode: PlanRun['request']['mode'],
      verdict: PlanRun['verdict'],
      states: Readonly<Record<string, PlanRun['steps'][number]['state']>> = {},
    ): PlanRun => ({
      ...{ runId: 'r', actor: 'operator:a', request: { mode }, document: SHOP, startedAtMs: 0 },
      steps: Object.entries(states).map(([machine, state]) => ({ machine, machineId: machine, state })),
      ...(verdict ? { verdict } : {}),
    });
    assert.equal(directionOf(held({ db: 'here', web: 'here', mail: 'unknown' }), []), 'cede');
    assert.equal(directionOf(held({ db: 'elsewhere', web: 'elsewhere', mail: 'unknown' }), []), 'take');
    // Where they are counts, and not what was done last.
    assert.equal(directionOf(held({ db: 'elsewhere' }), [run('cede', 'partly')]), 'take');
    const both = held({ db: 'here', web: 'elsewhere' });
    assert.deepEqual(directionOf(both, []), { here: ['db'], elsewhere: ['web'], unread: [] });
    const ceded = run('cede', 'partly', { web: 'done', db: 'failed' });
    const taken = run('take', 'cancelled', { web: 'waiting', db: 'done' });
    assert.equal(directionOf(both, [run('test', 'done', { db: 'done', web: 'done' }), ceded]), 'cede');
    assert.equal(directionOf(both, [taken, ceded]), 'take');
    assert.equal(directionOf(both, [{ ...taken, verdict: undefined } as PlanRun]), 'take', 'it is under way');
    // A run after which machines have moved otherwise, or that has moved none, has nothing to do with what is so now.
    for (const former of [
      run('take', 'done', { db: 'done', web: 'done' }),
      run('cede', 'partly', { db: 'done', web: 'done' }),
      run('take', 'partly', { db: 'done', web: 'done' }),
      run('cede', 'cancelled', { db: 'waiting', web: 'waiting' }),
      run('take', 'cancelled', { db: 'waiting', web: 'waiting' }),
    ]) {
      assert.deepEqual(directionOf(both, [former, ceded]), {
        ...{ here: ['db'], elsewhere: ['web'], unread: [] },
      });
    }
    // One that was moved fails when what is run after it fails; one that failed before that was not moved by the run, wherever it is now.
    const unclear = { here: ['db'], elsewhere: ['web'], unread: [] };
    for (const [mode, moved, failed] of [
      ['take', 'db', run('take', 'failed', { db: 'failed', web: 'blocked' })],
      ['cede', 'web', run('cede', 'failed', { web: 'failed', db: 'blocked' })],
    ] as const) {
      assert.deepEqual(directionOf(both, [failed]), unclear);
      assert.deepEqual(directionOf(both, [hooked(failed, moved, 'before')]), unclear);
      assert.equal(directionOf(both, [hooked(failed, moved, 'after')]), mode);
    }
    // What was moved and is back again is not as the run left it.
    const returned = run('cede', 'failed', { web: 'done', db: 'failed' });
    assert.deepEqual(directionOf(both, [hooked(returned, 'db', 'after')]), unclear);
    // What is offered, and not taken yet, goes on as it was begun, whatever has come of the runs.
    assert.equal(directionOf(held({ db: 'offered', web: 'elsewhere' }), []), 'cede');
    assert.equal(directionOf(held({ db: 'offered' }), [run('cede', 'done')]), 'cede');
    assert.equal(directionOf(held({ db: 'here', web: 'offered' }), []), 'cede');
    // One that cannot be read may be at either, and no run that was not done says that a move is under way.
    for (const former of [[], [run('take', 'partly')], [run('cede', 'partly')]]) {
      const unsure = (places: Readonly<Record<string, HeldWhere>>) => directionOf(held(places), former);
      assert.deepEqual(unsure({ db: 'unread', web: 'here' }), {
        ...{ here: ['web'], elsewhere: [], unread: ['db'] },
      });
      assert.deepEqual(unsure({ db: 'unread', web: 'elsewhere' }), {
        ...{ here: [], elsewhere: ['web'], unread: ['db'] },
      });
      assert.equal(unsure({ db: 'unread', web: 'offered' }), 'cede');
    }
    assert.equal(
      directionOf(held({ db: 'unread', web: 'here', mail: 'elsewhere' }), [
        run('cede', 'partly', { mail: 'done', web: 'blocked' }),
      ]),
      'cede',
    );
  });

  it('F5 a NIC goes where its machine says, else where the plan says of its network at this site', () => {
    const plan: PlanDocument = {
      ...SHOP,
      machines: { db: { networks: { wan: { kind: 'tap', interfaceName: 'tap7' } } } },
    };
    const nics = [
      { nicId: 'lan', network: 'office' },
      { nicId: 'wan', network: 'office' },
      { nicId: 'dmz', network: 'public' },
    ];
    assert.deepEqual(networksAt(plan, 'db', nics, 'berlin'), {
      lan: { kind: 'bridge', bridge: 'br0' },
      wan: { kind: 'tap', interfaceName: 'tap7' },
    });
    assert.deepEqual(Object.keys(networksAt(plan, 'db', nics, 'hamburg')), ['wan']);
  });

  it('F5 names that every object of the language has are names like others', () => {
    const nics = [{ nicId: 'constructor', network: '__proto__' }];
    const gates = [{ kind: 'tcp', host: '{constructor}', port: 1 } as const];
    const plan: PlanDocument = { plan: 'shop', machines: { db: { after: ['toString'], gates } } };
    assert.match(findingsOf(plan)[0]!.message, /db waits for toString, which is not in the plan/);
    assert.deepEqual(gatesAt(plan, 'db', 'constructor').unknownNics, ['constructor']);
    assert.equal(changesAt(plan, 'db', 'constructor', false), undefined);
    assert.deepEqual(networksAt(plan, 'db', nics, 'constructor'), {});
    const said = findingsAt(
      plan,
      'constructor',
      () => ({ nics, hasAgent: true, isReady: true }),
      () => undefined,
    );
    assert.match(
      said.map(({ message }) => message).join(),
      /nothing says what is connected here: constructor/,
    );
    const networks = JSON.parse('{"__proto__":{"valueOf":{"kind":"bridge","bridge":"br0"}}}');
    assert.deepEqual(networksAt({ ...plan, networks }, 'db', nics, 'valueOf'), {
      constructor: { kind: 'bridge', bridge: 'br0' },
    });
  });

  it('F5 addresses of a NIC that the machine has lost keep it from nothing on the day itself', () => {
    const lan = { addresses: ['10.1.0.9/24'] };
    const changes = { cpus: 2, addresses: { lan, gone: lan } };
    assert.deepEqual(forNicsOf(changes, [{ nicId: 'lan' }]), { cpus: 2, addresses: { lan } });
    assert.deepEqual(forNicsOf(changes, []), { cpus: 2 });
    assert.deepEqual(forNicsOf({ mac: 'new' }, [{ nicId: 'lan' }]), { mac: 'new' });
  });

  it('F5 how long it takes follows from what was measured along the longest way, and is unknown where nothing was', () => {
    const took: Readonly<Record<string, number>> = { db: 3000, app: 2000, cache: 500, web: 1000 };
    const estimate = estimateOf(SHOP, (machine) => took[machine]);
    assert.equal(estimate.totalMs, 6500);
    assert.deepEqual(estimate.machines.at(-1), {
      ...{ machine: 'web', measuredMs: 1000, beginsAtMs: 5500, upAtMs: 6500 },
    });
    const { totalMs, machines } = estimateOf(SHOP, (machine) => (machine === 'app' ? undefined : 1000));
    assert.equal(totalMs, null);
    assert.deepEqual(
      machines.map(({ upAtMs }) => upAtMs),
      [1000, null, null, null],
    );
  });

  it('S0.17 what fences is what a machine names, else the plan; the site has to have both', () => {
    const own = { program: 'ipmi', limitMs: 5000 };
    const plan: PlanDocument = {
      ...SHOP,
      fencing: { program: 'switch-port' },
      machines: { ...SHOP.machines, db: { fencing: own } },
    };
    assert.deepEqual(fencingOf(plan, 'db'), own);
    assert.deepEqual(fencingOf(plan, 'web'), { program: 'switch-port' });
    assert.equal(fencingOf(SHOP, 'db'), undefined, 'the site says');
    assert.deepEqual(programsOf(plan), [{ program: 'switch-port' }, { machine: 'db', program: 'ipmi' }]);
    assert.deepEqual(differenceOf(SHOP, plan), [
      'fencing not said → {"program":"switch-port"}',
      '~ machine db: fencing not said → {"limitMs":5000,"program":"ipmi"}',
    ]);
  });

  it('F5 no more begin at a time in an estimate than a run begins: of six in a tier two wait for a place', () => {
    const names = ['a', 'b', 'c', 'd', 'e', 'f'];
    const plan: PlanDocument = {
      plan: 'many',
      machines: { ...Object.fromEntries(names.map((name) => [name, {}])), last: { tier: 2 } },
    };
    const took: Readonly<Record<string, number>> = {
      ...{ a: 4000, b: 1000, c: 3000, d: 2000, e: 5000, f: 500, last: 100 },
    };
    const begun = (measuredMs: (machine: string) => number | undefined) => {
      const { totalMs, machines } = estimateOf(plan, measuredMs);
      return [totalMs, ...machines.map(({ beginsAtMs }) => beginsAtMs)];
    };
    assert.equal(MOST_AT_ONCE, 4);
    assert.deepEqual(
      begun((machine) => took[machine]),
      [6100, 0, 0, 0, 0, 1000, 2000, 6000],
    );
    // One that nobody has measured keeps its place, and hides nothing of the others but what waits for it.
    assert.deepEqual(
      begun((machine) => (machine === 'b' ? undefined : took[machine])),
      [null, 0, 0, 0, 0, 2000, 3000, null],
    );
    // Where too few places are left, nobody knows when the next one begins.
    assert.deepEqual(
      begun((machine) => (['e', 'f', 'last'].includes(machine) ? 10 : undefined)),
      [null, 0, 0, 0, 0, null, null, null],
    );
  });

  it('F5 what changes from one plan to the next is told line by line', () => {
    const { web: _gone, ...machines } = SHOP.machines;
    const after: PlanDocument = {
      ...SHOP,
      description: 'all of it',
      machines: { ...machines, db: { tier: 2 }, mail: {} },
    };
    assert.deepEqual(differenceOf(SHOP, after), [
      'description',
      '- machine web',
      '~ machine db: tier not said → 2',
      '+ machine mail',
    ]);
    assert.deepEqual(differenceOf(SHOP, structuredClone(SHOP)), []);
  });
});
