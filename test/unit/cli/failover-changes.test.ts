import assert from 'node:assert/strict';
import { it } from 'node:test';
import type { JobView } from '../../../src/api/index.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { newId, systemRandom } from '../../../src/lib/random.ts';
import { asking } from './asking.ts';

const ID = newId(systemClock, systemRandom);
const JOB: JobView = {
  ...{ jobId: ID, kind: 'failover.start', state: 'queued', machineId: ID, args: {}, actor: 'operator' },
  ...{ createdAtMs: 0, progress: {} },
};
const START = ['failover', 'start', 'web', '--confirm-other-side-down', '--no-wait'];
const TAKE = ['failover', 'take', 'web', '--no-wait'];
const TEST = ['failover', 'test', 'web', '--no-wait'];

const ADDRESSES = [
  ...['--address', 'lan=192.0.2.5/24,192.0.2.6/24,gateway=192.0.2.1,dns=192.0.2.53,dns=192.0.2.54'],
  ...['--address', 'backup=198.51.100.9/32', '--address-tool', '/usr/local/sbin/set-addresses'],
];
const AS_SENT = {
  addresses: {
    lan: {
      addresses: ['192.0.2.5/24', '192.0.2.6/24'],
      gateway: '192.0.2.1',
      dns: ['192.0.2.53', '192.0.2.54'],
    },
    backup: { addresses: ['198.51.100.9/32'] },
  },
  addressTool: '/usr/local/sbin/set-addresses',
};

it('F5 what is different where a machine comes up goes to the site as it was meant', async (t) => {
  const { ask } = await asking(t, JOB);
  const all = ['--memory', '2GiB', '--cpus', '2', '--new-macs', '--new-uuid', ...ADDRESSES];
  const changes = { ...AS_SENT, memoryBytes: 2 ** 31, cpus: 2, mac: 'new', uuid: 'new' };
  const started = await ask(...START, ...all);
  assert.deepEqual(started.sent, { confirmOtherSideDown: true, changes }, started.messages);
  const taken = await ask(...TAKE, '--new-macs');
  assert.deepEqual(taken.sent, { changes: { mac: 'new' } });
  // What a test may take is its limit, and its limit alone.
  const tested = await ask(...TEST, ...all);
  assert.deepEqual(tested.sent, {
    limits: { memoryBytes: 2 ** 31, cpus: 2 },
    changes: { ...AS_SENT, mac: 'new', uuid: 'new' },
  });
  assert.deepEqual((await ask(...START)).sent, { confirmOtherSideDown: true });
  assert.deepEqual((await ask(...TAKE)).sent, {});
});

it('F5 addresses that are none are refused before anything is asked of the site, with the form that is wanted', async (t) => {
  const { ask, site } = await asking(t, JOB);
  for (const [wrong, said] of [
    ['192.0.2.5/24', /NIC=ADDRESS\/PREFIX/],
    ['lan=', /NIC=ADDRESS\/PREFIX/],
    ['lan=192.0.2.5', /NIC=ADDRESS\/PREFIX/],
    ['lan=192.0.2.5/33', /NIC=ADDRESS\/PREFIX/],
    ['lan=192.0.2.5/0', /NIC=ADDRESS\/PREFIX/],
    ['lan=192.0.2.256/24', /NIC=ADDRESS\/PREFIX/],
    ['lan=gateway=192.0.2.1', /NIC=ADDRESS\/PREFIX/],
    ['LAN=192.0.2.5/24', /NIC=ADDRESS\/PREFIX/],
    ['lan=2001:db8::5/64', /NIC=ADDRESS\/PREFIX/],
    ['lan=192.0.2.5/24,gateway=router', /«router» is not an IPv4 address/],
    ['lan=192.0.2.5/24,dns=192.0.2', /«192.0.2» is not an IPv4 address/],
    ['lan=192.0.2.5/24,gateway=192.0.2.1,gateway=192.0.2.2', /one gateway for a NIC/],
  ] as const) {
    const ran = await ask(...START, '--address', wrong);
    assert.equal(ran.exitCode, 2, wrong);
    assert.match(ran.messages, said, wrong);
    assert.match(ran.messages, /--address/, wrong);
  }
  const twice = await ask(...START, '--address', 'lan=192.0.2.5/24', '--address', 'lan=192.0.2.6/24');
  assert.match(twice.messages, /names lan twice/);
  const alone = await ask(...TAKE, '--address-tool', '/bin/true');
  assert.match(alone.messages, /--address-tool sets what --address says/);
  for (const wrong of [
    ['--memory', '2GB'],
    ['--cpus', '0'],
    ['--memory', '0'],
  ])
    assert.equal((await ask(...START, ...wrong)).exitCode, 2, wrong.join(' '));
  assert.deepEqual(
    site.asked.filter(({ method }) => method !== 'GET'),
    [],
  );
});
