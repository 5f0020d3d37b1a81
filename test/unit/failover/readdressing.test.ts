/** Other addresses for the NICs of a guest: what is run in it, and that it is believed only when it reads back. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { changed, changesOf } from '../../../src/failover/branch-changes.ts';
import { commandsFor, type Readdressed, whileReaddressed } from '../../../src/failover/readdressing.ts';
import type { MachineConfiguration } from '../../../src/hypervisor/index.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { systemRandom } from '../../../src/lib/random.ts';
import { FakeGuestAgent, reply } from '../../support/fake-guest-agent.ts';
import type { CleanUp } from '../../support/temporary.ts';

const NIC = { nicId: 'lan', model: 'virtio-net-pci', mac: '52:54:00:00:00:01', network: 'office' } as const;
const WANTED = { addresses: ['10.1.0.9/24'] };

/** A guest with one NIC, whose `ip` does what it is told, or nothing. */
async function guestWithNic(t: CleanUp, o: { readonly obeys: boolean }) {
  const guest = { addresses: ['10.0.0.9/24'], ran: [] as string[] };
  const agent = await FakeGuestAgent.start(t, ({ execute, arguments: args }) => {
    switch (execute) {
      case 'guest-network-get-interfaces':
        return reply([
          {
            name: 'ens3',
            'hardware-address': NIC.mac.toUpperCase(),
            'ip-addresses': guest.addresses.map((one) => {
              const [address, prefix] = one.split('/');
              return { 'ip-address-type': 'ipv4', 'ip-address': address, prefix: Number(prefix) };
            }),
          },
        ]);
      case 'guest-exec': {
        const words = args.arg as string[];
        guest.ran.push([args.path, ...words].join(' '));
        if (o.obeys && words.includes('flush')) guest.addresses = [];
        if (o.obeys && words.includes('add')) guest.addresses.push(words[2]!);
        return reply({ pid: 7 });
      }
      case 'guest-exec-status':
        return reply({ exited: true, exitcode: 0 });
      default:
        return undefined;
    }
  });
  const gone = Promise.withResolvers<void>();
  const readdressed: Readdressed = {
    machine: { sockets: { qmpPath: '', agentPath: agent.path }, gone: gone.promise },
    ...{ agentPort: { opened: Promise.resolve() }, clock: systemClock, nics: [NIC] },
    changes: { addresses: { lan: WANTED } },
  };
  return { guest, readdressed, end: () => gone.resolve() };
}

test('F7 a guest that sets its old addresses again while it boots gets those that it is to have again', async (t) => {
  const { guest, readdressed } = await guestWithNic(t, { obeys: true });
  const { asked, report } = await whileReaddressed(readdressed, async () => {
    assert.deepEqual(guest.addresses, WANTED.addresses, 'before anything is asked');
    guest.addresses = ['10.0.0.9/24'];
    while (guest.addresses[0] !== WANTED.addresses[0]) await new Promise(setImmediate);
    return 'asked';
  });
  assert.equal(asked, 'asked');
  assert.deepEqual(report, {
    nics: [{ nicId: 'lan', mac: NIC.mac, interfaceName: 'ens3', wanted: WANTED, found: WANTED.addresses }],
    rounds: 2,
  });
  assert.deepEqual(guest.ran.slice(0, 3), [
    'ip -4 address flush dev ens3',
    'ip link set dev ens3 up',
    'ip address add 10.1.0.9/24 dev ens3',
  ]);
});

test('F7 what a guest does not read back is not so: nothing is asked, and it is told what it has', async (t) => {
  const { guest, readdressed, end } = await guestWithNic(t, { obeys: false });
  const settled = whileReaddressed(readdressed, async () => assert.fail('nothing may be asked'));
  while (guest.ran.length < 6) await new Promise(setImmediate);
  end();
  const { asked, report } = await settled;
  assert.equal(asked, undefined);
  assert.match(
    report.failure!,
    /the machine has ended; lan has 10\.0\.0\.9\/24 in the guest, and not 10\.1\.0\.9/,
  );
});

test('F7 a guest in which somebody may work already is left alone where it has its addresses', async (t) => {
  const { guest, readdressed } = await guestWithNic(t, { obeys: true });
  guest.addresses = [...WANTED.addresses];
  const changes = { addresses: { lan: { ...WANTED, gateway: '10.1.0.1' } } };
  const at = await whileReaddressed({ ...readdressed, changes, isAtWork: true }, async () => true);
  assert.deepEqual([at.report.rounds, guest.ran], [0, []]);
  const new_ = await whileReaddressed({ ...readdressed, changes }, async () => true);
  assert.equal(new_.report.rounds, 1);
  assert.equal(guest.ran.at(-1), 'ip route replace default via 10.1.0.1 dev ens3');
});

test('F7 a tool of the guest gets everything at once, and resolvers go where the guest keeps them', () => {
  const nic = {
    interfaceName: 'ens3',
    wanted: { addresses: ['10.1.0.9/24', '10.1.0.10/24'], dns: ['10.1.0.1'] },
  };
  assert.deepEqual(commandsFor(nic, '/sbin/re-ip'), [
    ['/sbin/re-ip', 'ens3', '10.1.0.9/24,10.1.0.10/24', '-', '10.1.0.1'],
  ]);
  const own = commandsFor(nic, undefined);
  assert.equal(own.length, 5);
  assert.deepEqual(own.at(-1)!.slice(-2), ['ens3', '10.1.0.1']);
});

test('F5 a machine keeps who it is and what it has unless it is said otherwise, and new names are made up once', () => {
  const machine = { uuid: 'u', memoryBytes: 1, cpus: 1, nics: [NIC] } as unknown as MachineConfiguration;
  assert.deepEqual(
    changed(machine, changesOf({ mac: 'keep', uuid: 'keep' }, machine, systemRandom)),
    machine,
  );
  const changes = changesOf(
    { mac: 'new', uuid: 'new', cpus: 2, addresses: { lan: WANTED, gone: WANTED } },
    machine,
    systemRandom,
  );
  assert.deepEqual(Object.keys(changes.addresses!), ['lan'], 'a NIC that the point does not have');
  const other = changed(machine, changes);
  assert.match(other.nics[0]!.mac, /^52:54:00(:[0-9a-f]{2}){3}$/);
  assert.match(other.uuid, /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  assert.deepEqual([other.cpus, other.memoryBytes], [2, 1]);
  assert.deepEqual(changed(machine, changes), other);
});
