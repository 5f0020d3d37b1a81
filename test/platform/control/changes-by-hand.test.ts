/** A machine that comes up otherwise than it was, by the command line alone. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { it } from 'node:test';
import type { JobView } from '../../../src/api/index.ts';
import type { FailoverReport } from '../../../src/failover/index.ts';
import { sitesWithShop } from '../../support/shop-sites.ts';
import { run as cli } from '../../unit/cli/fake-world.ts';

const WEB = { name: 'web', address: '10.77.0.3/24', mac: '52:54:00:77:02:02' } as const;
const OF_WEB = { params: { machine: 'web' } };
/** There is nothing to take from the site that lives. */
const START = ['failover', 'start', 'web', '--confirm-other-side-down'];

it('F5 what options of a failover say is so: memory, CPUs, MAC, UUID, and the addresses that the guest has', {
  timeout: 200_000,
}, async (context) => {
  const { home, away, awayApi } = await sitesWithShop(context, [WEB]);
  await home.close();
  const here = { environment: { ...process.env, WARMSITE_DATA: away.dataDirectory } };
  const { epoch } = await awayApi.call('vm.show', OF_WEB);

  const slip = await cli([...START, '--address', 'lam=10.88.0.3/24'], here);
  assert.equal(slip.exitCode, 2);
  assert.match(slip.messages, /the machine has no NIC lam; it has lan/);
  assert.equal((await awayApi.call('vm.show', OF_WEB)).epoch, epoch, 'nothing has been changed');

  const changes = ['--memory', '192M', '--cpus', '2', '--new-macs', '--new-uuid'];
  const address = ['--address', 'lan=10.88.0.3/24,10.88.0.4/24,gateway=10.88.0.254'];
  for (const command of [['failover', 'test', 'web', '--keep'], START]) {
    const ran = await cli([...command, ...changes, ...address, '--probe', 'agent', '--json'], here);
    assert.equal(ran.exitCode, 0, ran.output + ran.messages);
    const { result } = JSON.parse(ran.output) as JobView;
    const [attempt] = (result as FailoverReport).attempts;
    const [nic] = attempt!.addresses!.nics;
    assert.deepEqual([nic!.nicId, nic!.found], ['lan', ['10.88.0.3/24', '10.88.0.4/24']]);
    assert.notEqual(nic!.mac, WEB.mac);
    const branches = await awayApi.call('failover.list', OF_WEB);
    const branch = branches.find(({ branchId }) => branchId === attempt!.branchId)!;
    const started = (await readFile(`/proc/${branch.processId}/cmdline`, 'utf8')).replaceAll('\0', ' ');
    assert.match(started, /-m (size=)?(192M|201326592B|196608K|192\b)/);
    assert.match(started, /-smp (cpus=)?2\b/);
    assert.match(started, new RegExp(`mac=${nic!.mac}`));
    assert.doesNotMatch(started, /6f1f2c3e/);
  }
});
