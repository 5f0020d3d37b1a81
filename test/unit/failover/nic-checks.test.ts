import assert from 'node:assert/strict';
import { it } from 'node:test';
import {
  type ArrivingMachine,
  checkAddressesApart,
  checkReaddressable,
} from '../../../src/failover/nic-checks.ts';
import { type Attempt, RunUnderWay } from '../../../src/failover/run-under-way.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { isFailure } from '../../../src/lib/errors.ts';

const LAN = '52:54:00:aa:00:01';
const WAN = '52:54:00:aa:00:02';

function machine(
  name: string,
  macs: readonly string[],
  mappings: ArrivingMachine['mappings'],
): ArrivingMachine {
  return {
    ...{ machineName: name, mappings },
    configuration: {
      ...{ name, uuid: '6a1c5a5e-0000-4000-8000-00000000000b', architecture: 'x86_64', chipset: 'q35' },
      ...{ firmware: 'bios', cpus: 1, memoryBytes: 2 ** 28, guestAgent: true },
      disks: [{ diskId: 'system', bus: 'virtio-blk', sizeBytes: 2 ** 20 }],
      nics: macs.map((mac, index) => ({
        ...{ nicId: `nic${index}`, model: 'virtio-net-pci', network: 'default', mac },
      })),
    },
  };
}

const on = (bridge: string) => ({ kind: 'bridge', bridge }) as const;
const by = (interfaceName: string) => ({ kind: 'tap', interfaceName }) as const;

function refused(...machines: ArrivingMachine[]): string | undefined {
  try {
    checkAddressesApart(machines);
    return undefined;
  } catch (error) {
    assert.ok(isFailure(error, 'FAILOVER_ADDRESS_TWICE'));
    return error.message;
  }
}

it('S0.28 members of a group that would have one address on one bridge are refused, with both names', () => {
  const web = machine('web', [LAN, WAN], { nic0: on('br0') });
  assert.equal(
    refused(web, machine('clone', [WAN, LAN], { nic1: on('br0') })),
    `nic0 of web and nic1 of clone would both have ${LAN} on br0`,
  );
  assert.equal(refused(web, machine('clone', [LAN], { nic0: on('br1') })), undefined, 'networks apart');
  assert.equal(refused(web, machine('clone', [LAN], {})), undefined, 'unplugged');
  assert.equal(
    refused(web, machine('db', [WAN], { nic0: on('br0') })),
    undefined,
    'not the one that is plugged',
  );
});

it('S0.28 one tap is for one NIC, of one machine or of two', () => {
  const web = machine('web', [LAN, WAN], { nic0: by('tap0'), nic1: by('tap1') });
  assert.equal(refused(web), undefined);
  assert.match(refused(web, machine('db', ['52:54:00:aa:00:03'], { nic0: by('tap1') }))!, /the tap tap1$/);
  assert.match(refused(machine('web', [LAN, WAN], { nic0: by('tap0'), nic1: by('tap0') }))!, /the tap tap0$/);
});

it('S0.28 what is only likely is told by the report of the failover', () => {
  const run = new RunUnderWay({ clock: systemClock });
  const report = {
    ...{ verdict: 'passed', branchId: 'b', point: { pointId: 'p' } },
    steps: [],
    assertions: [],
  };
  const network = { kind: 'connected', unplugged: [] };
  run.add({ report: { ...report, network }, rtoMs: 1, runs: true } as unknown as Attempt);
  run.warn(['heard elsewhere']);
  const about = { kind: 'test', slow: undefined, otherDisks: () => [] };
  assert.deepEqual(run.report(about as unknown as Parameters<typeof run.report>[0]).warnings, [
    'heard elsewhere',
  ]);
});

it('F5 addresses for a NIC that no point has, or without an agent, are refused; a point that lacks the NIC hinders no other', () => {
  const { configuration } = machine('web', [LAN], {});
  const older = machine('web', [LAN, WAN], {}).configuration;
  const silent = { ...(configuration as object), guestAgent: false };
  const codeOf = (addresses: Readonly<Record<string, unknown>>, ...configurations: unknown[]) => {
    try {
      checkReaddressable(addresses, configurations);
      return undefined;
    } catch (error) {
      assert.ok(isFailure(error));
      return error.code;
    }
  };
  const wanted = { addresses: ['10.1.0.9/24'] };
  assert.equal(codeOf({ nic0: wanted }, configuration), undefined);
  assert.equal(codeOf({ nic1: wanted }, configuration), 'FAILOVER_NIC_UNKNOWN');
  assert.equal(codeOf({ nic1: wanted }, configuration, older), undefined);
  assert.equal(codeOf({ nic0: wanted }, silent), 'FAILOVER_NO_AGENT');
  assert.equal(codeOf({ nic0: wanted }, silent, configuration), undefined, 'one of the points has an agent');
  assert.equal(codeOf({}, silent), undefined, 'nobody is to be given any');
});
