import assert from 'node:assert/strict';
import { appendFile, writeFile } from 'node:fs/promises';
import { createServer as createWebServer } from 'node:http';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { AgentPort } from '../../../src/failover/agent-port.ts';
import { isolatedPlan, namespaceOf, sharedNetworks } from '../../../src/failover/network.ts';
import { type Probed, runProbes } from '../../../src/failover/probing.ts';
import { LineCollector, serialLineMatching } from '../../../src/failover/serial-log.ts';
import { CONNECT_PROGRAM } from '../../../src/failover/tcp-connect-main.ts';
import type { MachineEvent, MachineState } from '../../../src/hypervisor/index.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { isFailure } from '../../../src/lib/errors.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import { checkProbes, type Probe, patternOf, probingAddress } from '../../../src/probe/index.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { FakeGuestAgent } from '../../support/fake-guest-agent.ts';
import { type CleanUp, temporaryDirectory } from '../../support/temporary.ts';

const NIC = { nicId: 'lan', model: 'virtio-net-pci', mac: '52:54:00:00:00:01', network: 'office' } as const;

/** A machine that is nothing but its events, its agent's socket and its serial log. */
async function fakeProbed(
  t: CleanUp,
  o: Partial<Pick<Probed, 'clock' | 'programs'>> & {
    agentPath?: string;
    inGuest?: Probed['machine']['runInGuest'];
  } = {},
) {
  const runDirectory = await temporaryDirectory(t);
  const serialPath = join(runDirectory, 'serial.log');
  await writeFile(serialPath, '');
  const listeners = new Set<(event: MachineEvent) => void>();
  const gone = Promise.withResolvers<void>();
  let state: MachineState = 'running';
  const machine = {
    sockets: { qmpPath: '', ...(o.agentPath === undefined ? {} : { agentPath: o.agentPath }) },
    gone: gone.promise,
    state: async () => state,
    runInGuest: o.inGuest ?? (async () => ({ outcome: 'not-begun' as const, reason: 'a test' })),
    onEvent: (listener: (event: MachineEvent) => void) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
  const clock = o.clock ?? systemClock;
  const probed: Probed = {
    ...{ machine, runDirectory, clock, runningSinceMs: clock.monotonicMs(), environment: {} },
    programs: o.programs ?? { run: async () => ({ outcome: 'ended', exitCode: 0, output: '' }) },
    agentPort: new AgentPort(machine),
    network: { kind: 'unplugged', reason: 'a test' },
    isIsolated: false,
  };
  const tell = (event: MachineEvent) => {
    for (const listener of listeners) listener(event);
  };
  const port = (open: boolean) => tell({ name: 'VSERPORT_CHANGE', data: { id: 'agent', open } });
  const stop = (as: MachineState) => {
    state = as;
    tell({ name: 'STOP', data: {} });
  };
  return { probed, serialPath, port, stop, end: () => gone.resolve() };
}

test('the agent probe waits for the port to open and passes when the agent answers', async (t) => {
  const agent = await FakeGuestAgent.start(t);
  const { probed, port } = await fakeProbed(t, { agentPath: agent.path });
  const results = runProbes(probed, [{ kind: 'agent', limitMs: 20_000 }]);
  assert.equal(agent.clients, 0, 'nobody connects before the port is open');
  port(true);
  assert.equal((await results)[0]?.passed, true);
});

test('a probe that does not pass in its time fails with the limit in its reason', async (t) => {
  const clock = new FakeClock();
  const { probed } = await fakeProbed(t, { clock, agentPath: '/nowhere' });
  const results = runProbes(probed, [{ kind: 'agent', limitMs: 5_000 }]);
  await clock.turn(5_000);
  const [result] = await results;
  assert.equal(result?.passed, false);
  assert.match(result.reason!, /5000 ms/);
  assert.equal(result.durationMs, 5_000);
  assert.equal(clock.pending, 0);
});

test('a machine that ends decides all probes at once', async (t) => {
  const { probed, end } = await fakeProbed(t, { agentPath: '/nowhere' });
  const results = runProbes(probed, [{ kind: 'agent' }, { kind: 'serial', pattern: 'x' }]);
  end();
  for (const { passed, reason } of await results) {
    assert.equal(passed, false);
    assert.match(reason!, /has ended/);
  }
});

test('a machine whose processor stops for good decides all probes at once; one that is only stopped does not', async (t) => {
  const clock = new FakeClock();
  const { probed, stop } = await fakeProbed(t, { clock, agentPath: '/nowhere' });
  const results = runProbes(probed, [{ kind: 'agent' }, { kind: 'serial', pattern: 'x' }]);
  stop('paused');
  await clock.turn(1_000);
  stop('crashed');
  for (const { passed, durationMs, reason } of await results) {
    assert.deepEqual([passed, durationMs], [false, 1_000]);
    assert.match(reason!, /has crashed/);
  }
  assert.equal(clock.pending, 0);
});

test('cancelled probes end with the failure of the one who cancels', async (t) => {
  const { probed } = await fakeProbed(t, { agentPath: '/nowhere' });
  const cancel = new AbortController();
  const results = runProbes(probed, [{ kind: 'agent' }], cancel.signal);
  cancel.abort();
  await assert.rejects(results, (error) => isFailure(error, 'CANCELLED'));
});

test('a serial probe sees what was written before and after it was asked, also in pieces', async (t) => {
  const { probed, serialPath } = await fakeProbed(t);
  await appendFile(serialPath, 'boot\r\nfirst li');
  const early = serialLineMatching(serialPath, patternOf('^boot$'), AbortSignal.any([]));
  assert.equal(await early, 'boot');
  const results = runProbes(probed, [{ kind: 'serial', pattern: '^first line done', limitMs: 20_000 }]);
  await appendFile(serialPath, 'ne do');
  await appendFile(serialPath, 'ne\n');
  assert.equal((await results)[0]?.passed, true);
});

test('no line that a guest writes keeps the site from its work, however careless the pattern', async (t) => {
  const { probed, serialPath } = await fakeProbed(t);
  // A backtracking engine needs 2 to the 900 steps to find that this is no match.
  await appendFile(serialPath, `${'a'.repeat(900)}!\n`);
  const results = runProbes(probed, [{ kind: 'serial', pattern: '^(a+)+$', limitMs: 20_000 }]);
  await appendFile(serialPath, 'aaa\n');
  assert.equal((await results)[0]?.passed, true);
});

test('a pattern that only a backtracking engine could match is refused, and it is said why', () => {
  for (const pattern of ['(?=ready)', '(ready)\\1', '(']) {
    const check = () => checkProbes([{ kind: 'serial', pattern }]);
    assert.throws(
      check,
      (error) => isFailure(error, 'FAILOVER_PROBE_INVALID') && error.message.includes(pattern),
    );
  }
  const lines = patternOf('^ready$');
  assert.deepEqual([lines.test('not yet\nready\n'), lines.test('not ready')], [true, false]);
});

test('a line without an end takes no memory', () => {
  const lines = new LineCollector();
  for (let i = 0; i < 100; i++) {
    assert.ok(lines.take('x'.repeat(65_536)).every((line) => line.length <= 1000));
  }
  assert.deepEqual(lines.take('\nnext\nand').slice(1), ['next', 'and']);
});

test('a TCP probe of a machine without a network fails and says why; of one that is connected it is asked from this host', async (t) => {
  const { probed } = await fakeProbed(t);
  const unplugged = { ...probed, network: { kind: 'unplugged', reason: 'no cable' } } as const;
  const [result] = await runProbes(unplugged, [{ kind: 'tcp', host: '192.0.2.1', port: 80 }]);
  assert.match(result!.reason!, /no network to connect from/);
  const server = createServer((socket) => socket.destroy());
  t.after(() => new Promise<void>((resolve) => server.close(() => resolve())));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  const connected = { ...probed, network: { kind: 'connected', unplugged: [] } } as const;
  const [passed] = await runProbes(connected, [{ kind: 'tcp', host: '127.0.0.1', port }]);
  assert.equal(passed!.passed, true, passed!.reason);
});

test('the connecting process tells by its exit code whether somebody accepts', async (t) => {
  const server = createServer((socket) => socket.destroy());
  t.after(() => new Promise<void>((resolve) => server.close(() => resolve())));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  const connected = await runCommand(process.execPath, [CONNECT_PROGRAM, '127.0.0.1', String(port), '5000']);
  assert.equal(connected.exitCode, 0);
  const refused = await runCommand(process.execPath, [CONNECT_PROGRAM, '127.0.0.1', '1', '50'], {
    allowExit: [1],
  });
  assert.equal(refused.exitCode, 1);
  assert.match(refused.stderr, /ECONNREFUSED/);
});

test('F5 a web server is asked until status and body are as wished, and what it said last is told', async (t) => {
  let asked = 0;
  const server = createWebServer((request, response) => {
    asked += 1;
    response.statusCode = request.url === '/late' && asked < 3 ? 503 : 200;
    response.end(`first\n${request.headers.host} has ${asked} orders\n`);
  });
  t.after(() => new Promise<void>((resolve) => server.close(() => resolve())));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  const { probed } = await fakeProbed(t);
  const connected = { ...probed, network: { kind: 'connected', unplugged: [] } } as const;
  const limitMs = 10_000;
  const url = `http://127.0.0.1:${port}`;
  const [late] = await runProbes(connected, [
    {
      kind: 'http',
      url: `${url}/late`,
      name: 'shop.example',
      pattern: '^shop.example has \\d+ orders$',
      limitMs,
    },
  ]);
  assert.equal(late!.passed, true, late!.reason);
  assert.equal(asked, 3);
  const never: Probe[] = [
    { kind: 'http', url, status: 204, limitMs: 4_000 },
    { kind: 'http', url, pattern: '^nothing', limitMs: 4_000 },
  ];
  const [status, body] = await runProbes(connected, never);
  assert.match(status!.reason!, /it answers with status 200/);
  assert.match(body!.reason!, /does not match: first/);
  // A pattern that takes for ever takes its time, and no more.
  const greedy = { kind: 'http', url, pattern: '^([a-z ]+)+#', limitMs: 1_000 } as const;
  const [slow] = await runProbes(connected, [greedy]);
  assert.equal(slow!.passed, false);
});

test('F5 a database is asked by its own client in the guest, and a program of the site until it agrees', async (t) => {
  const said: string[][] = [];
  const { probed, port } = await fakeProbed(t, {
    inGuest: async ({ command, arguments: args }) => {
      said.push([command, ...args]);
      const output = said.length < 2 ? 'the database system is starting up' : '17\n';
      return { outcome: 'ended', exitCode: said.length < 2 ? 2 : 0, output };
    },
    programs: {
      run: async (name, { environment, namespace }) => {
        programs.push(`${name} ${environment.WARMSITE_NETWORK} ${namespace}`);
        return { outcome: 'ended', exitCode: programs.length < 2 ? 1 : 0, output: 'not yet' };
      },
    },
  });
  const programs: string[] = [];
  port(true);
  const query = { kind: 'sql', query: 'select count(*) from orders', pattern: '^[1-9]' } as const;
  const results = await runProbes(probed, [
    { ...query, system: 'postgresql', database: 'shop' },
    { kind: 'script', program: 'shop-agrees' },
  ]);
  assert.deepEqual(
    results.map(({ passed }) => passed),
    [true, true],
  );
  assert.deepEqual(programs, ['shop-agrees unplugged undefined', 'shop-agrees unplugged undefined']);
  const asWhom = ['runuser', '-u', 'postgres', '--'];
  const client = ['psql', '-X', '-A', '-t', '-q', '-v', 'ON_ERROR_STOP=1', '-d', 'shop', '-c', query.query];
  assert.deepEqual(said, [
    [...asWhom, ...client],
    [...asWhom, ...client],
  ]);
  const empty = { ...query, system: 'sqlite', database: '/shop.db', pattern: '^99$', limitMs: 400 } as const;
  const [wrong] = await runProbes({ ...probed, runningSinceMs: systemClock.monotonicMs() }, [empty]);
  assert.match(wrong!.reason!, /no success within 400 ms; the last time it says: 17/);
});

test('probes that cannot be asked are refused before anything starts', () => {
  const wrong: Probe[] = [
    { kind: 'serial', pattern: '(' },
    { kind: 'tcp', host: 'example.org', port: 80 },
    { kind: 'tcp', host: '10.0.0.1', port: 0 },
    { kind: 'tcp', host: '10.0.0.1', port: 80, from: '10.0.0.2; reboot' },
    { kind: 'tcp', host: '10.0.0.1', port: 80, from: '10.0.0.2/33' },
    { kind: 'agent', limitMs: Number.NaN },
    { kind: 'http', url: 'http://example.org/' },
    { kind: 'http', url: 'file:///etc/passwd' },
    { kind: 'http', url: 'http://10.0.0.1/', pattern: '(' },
    { kind: 'http', url: 'http://10.0.0.1/', name: 'a\r\nb' },
    { kind: 'sql', system: 'postgresql', query: 'select 1', pattern: '(' },
  ];
  for (const probe of wrong) {
    assert.throws(
      () => checkProbes([probe]),
      (error) => isFailure(error, 'FAILOVER_PROBE_INVALID'),
    );
  }
  checkProbes([{ kind: 'tcp', host: '10.0.0.1', port: 80, from: '10.0.0.2/30' }]);
});

test('F5 a query of SQLite names the file that it is asked of: without one the client asks nothing and ends well', () => {
  const query = { kind: 'sql', query: 'select count(*) from orders' } as const;
  for (const wrong of [{}, { database: '-header' }, { pattern: '^[1-9]' }]) {
    assert.throws(
      () => checkProbes([{ ...query, system: 'sqlite', ...wrong }]),
      (error) => isFailure(error, 'FAILOVER_PROBE_INVALID') && error.message.includes('database'),
    );
  }
  checkProbes([{ ...query, system: 'sqlite', database: '/srv/shop.db' }]);
  for (const system of ['postgresql', 'mariadb', 'mysql'] as const) checkProbes([{ ...query, system }]);
});

test('the probing side never takes the address of the guest', () => {
  assert.equal(probingAddress({ kind: 'tcp', host: '10.1.2.3', port: 1 }), '10.1.2.254/24');
  assert.equal(probingAddress({ kind: 'tcp', host: '10.1.2.254', port: 1 }), '10.1.2.253/24');
});

test('NICs that are in one network at home share a bridge, others do not meet', () => {
  const { commands, bridges, attachments } = isolatedPlan([
    NIC,
    { ...NIC, nicId: 'wan', network: 'uplink; reboot' },
    { ...NIC, nicId: 'lan2' },
  ]);
  assert.deepEqual(bridges, { office: 'br0', 'uplink; reboot': 'br1' });
  assert.equal(attachments.lan2?.interfaceName, 'tap2');
  assert.ok(commands.includes('link set dev tap2 master br0 up'));
  assert.ok(commands.includes('link set dev tap1 master br1 up'));
  assert.ok(!commands.join().includes('reboot'), 'names of the other site are not part of commands');
});

test('F5 a machine that cannot be plugged in keeps no other one of its rehearsal from that', async () => {
  const there = new Set<string>();
  /** As `ip -batch`: ended by the first command that fails; what came before is done. */
  const ip = (broken: string) => async (commands: readonly string[]) => {
    for (const command of commands) {
      const bridge = /^link add (\S+) type bridge$/.exec(command)?.[1];
      if (command.includes(broken) || (bridge && there.has(bridge))) throw new Error(`failed: ${command}`);
      if (bridge) there.add(bridge);
    }
  };
  const test = { testId: 'rehearsal', bridges: new Map<string, string>(), hindrance: undefined };
  const [one, two] = ['one', 'two'].map((branchId) => ({ ...test, branchId, nics: [NIC] }));
  await assert.rejects(sharedNetworks.plug(one!, ip('tuntap')), /failed: tuntap/);
  const { report } = await sharedNetworks.plug(two!, ip('nothing'));
  assert.deepEqual(report, {
    ...{ kind: 'isolated', namespace: namespaceOf('rehearsal'), bridges: { [NIC.network]: 'br0' } },
  });
  assert.deepEqual([...there], ['br0']);
});

test('a network may have a name that every object of the language has', () => {
  const { commands, bridges } = isolatedPlan([
    { ...NIC, network: '__proto__' },
    { ...NIC, nicId: 'lan2', network: '__proto__' },
    { ...NIC, nicId: 'lan3', network: 'constructor' },
  ]);
  assert.deepEqual(Object.entries(bridges), [
    ['__proto__', 'br0'],
    ['constructor', 'br1'],
  ]);
  assert.ok(commands.includes('link set dev tap1 master br0 up'));
  assert.ok(commands.includes('link set dev tap2 master br1 up'));
});
