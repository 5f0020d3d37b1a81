/** Machines with UEFI firmware: their variables are one of their disks. */
import assert from 'node:assert/strict';
import { copyFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { buildLabGuest, startLabMachine } from '../../../lab/index.ts';
import { firmwareVariables, runPaths } from '../../../src/hypervisor/index.ts';
import { describedFirmware } from '../../../src/hypervisor/qemu/firmware-descriptors.ts';
import { verifyPoint } from '../../../src/replica/index.ts';
import { failoversOf, running } from '../../support/failover-site.ts';
import { BY_HAND, copyAndSend, inGuest, socketsOf } from '../../support/lab-sites.ts';
import { twoSites } from '../../support/two-sites.ts';

const VARIABLES = '/sys/firmware/efi/efivars';
const VENDOR = '57530000-0000-4000-8000-000000000001';
const MOUNT = `insmod /lib/modules/on-demand/efivarfs.ko; mount -t efivarfs efivarfs ${VARIABLES}`;
/** Not volatile, and there for the running system too (UEFI 2.10, 8.2). */
const ATTRIBUTES = '\\007\\000\\000\\000';
/** The variables that the test has written, which hold their own names. */
const READ = `cd ${VARIABLES} && for file in Warmsite*; do tail -c +13 "$file"; done; echo`;

/** Linux lets such a variable be made, and not be written again. */
function write(word: string): string {
  return `printf '${ATTRIBUTES}Warmsite${word}.' > ${VARIABLES}/Warmsite${word}-${VENDOR}`;
}

test('F8 a UEFI variable that the guest has written before the cut is what the recovered guest reads', async (t) => {
  const sites = await twoSites(t);
  const { directory } = sites;
  const found = (await describedFirmware()).find(({ features }) => !features.includes('secure-boot'));
  assert.ok(found, 'UEFI firmware is installed here');
  const variables = join(directory, 'variables.fd');
  await copyFile(found.template.path, variables);
  const lab = await startLabMachine({
    ...{ directory, guest: await buildLabGuest() },
    extraArgs: [
      ...['-drive', `if=pflash,unit=0,format=raw,readonly=on,file=${found.code.path}`],
      ...['-drive', `if=pflash,unit=1,format=raw,file=${variables}`],
    ],
  });
  t.after(() => lab.stop());
  const machine = await sites.adoptMachine(socketsOf(lab));
  const { configuration } = machine.record;
  assert.equal(configuration.firmware, 'uefi');
  assert.deepEqual(firmwareVariables(configuration), {
    ...{ diskId: 'firmware-variables', bus: 'pflash', sizeBytes: found.variablesBytes },
  });
  assert.deepEqual(
    configuration.disks.filter(({ bus }) => bus !== 'pflash').map(({ diskId }) => diskId),
    ['disk0', 'disk1'],
  );
  await lab.agentReady();
  await machine.attach();
  await machine.protect({ ...BY_HAND, targetSiteId: sites.target.siteId });
  await inGuest(lab.agentPath, `${MOUNT} && ${write('1')}`);
  await copyAndSend(machine, sites.target);
  await inGuest(lab.agentPath, write('2'));
  const { pointId, wireBytes } = await copyAndSend(machine, sites.target);
  await inGuest(lab.agentPath, write('3'));
  await copyAndSend(machine, sites.target);

  const replica = sites.replicas.need(machine.record.machineId);
  await verifyPoint(sites.replicaTools, replica, pointId);
  const { disks } = replica.point(pointId).statement;
  const { changedBytes, sizeBytes } = disks.find(({ diskId }) => diskId === 'firmware-variables')!;
  t.diagnostic(`a variable changed ${changedBytes} of ${sizeBytes} bytes; ${wireBytes} bytes were sent`);
  assert.ok(changedBytes > 0);
  assert.equal(sizeBytes, found.variablesBytes);
  for (const { chain } of await machine.running!.disks()) assert.ok(chain.length <= 3, 'layers are merged');

  await machine.unprotect();
  for (const { chain } of await machine.running!.disks()) assert.equal(chain.length, 1);
  assert.equal(await inGuest(lab.agentPath, READ), '1.2.3.', 'the guest goes on with its own file');
  await lab.stop();

  const { failovers, tools } = await failoversOf(t, sites);
  const report = await failovers.start(replica, { pointId }, { confirmedOtherSideDown: true });
  const { agentPath } = runPaths(join(tools.runDirectory, running(report)));
  assert.equal(await inGuest(agentPath, `${MOUNT} && ${READ}`), '1.2.');
  await inGuest(agentPath, write('4'));
  await verifyPoint(sites.replicaTools, replica, pointId);
});
