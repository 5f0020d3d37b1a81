import assert from 'node:assert/strict';
import { chmod, mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { runCommand } from '../../src/lib/processes.ts';
import { machineThatIsOff, pairedSites } from './paired-sites.ts';
import { BY_HAND, verifiedCopy, write } from './site-of-box.ts';
import type { CleanUp } from './temporary.ts';

const MIB = 1024 * 1024;

/** Two sites, and machines without a guest of which the second one has a point each. Each has a NIC in `network`, if that is given: a program of the site's that is a gate of a rehearsal asks from there. */
export async function sitesWithMachines(context: CleanUp, names: readonly string[], network?: string) {
  const sites = await pairedSites(context);
  for (const [index, name] of names.entries()) {
    const path = join(sites.directory, `${name}.qcow2`);
    await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', path, String(32 * MIB)]);
    await write(path, 1, 0, MIB);
    const mac = `52:54:00:77:03:${10 + index}`;
    const nics =
      network === undefined ? [] : [{ nicId: 'lan', model: 'virtio-net-pci', mac, network } as const];
    const body = machineThatIsOff({ path, sizeBytes: 32 * MIB, format: 'qcow2' }, nics);
    assert.ok('configuration' in body);
    const uuid = `6f1f2c3e-0d2a-4b5e-8f7a-0123456789${10 + index}`;
    await sites.homeApi.call('vm.add', {
      body: { ...body, configuration: { ...(body.configuration as object), name, uuid } },
    });
    const of = { params: { machine: name } };
    await sites.homeApi.call('vm.protect', { ...of, body: BY_HAND });
    await verifiedCopy(sites.homeApi, of);
  }
  return sites;
}

/** A gate that any machine passes: a program of the operator's at a site, who puts it there. */
export async function agreeingGate(dataDirectory: string) {
  const path = join(dataDirectory, 'programs', 'agree');
  await mkdir(dirname(path), { mode: 0o755, recursive: true });
  await writeFile(path, '#!/bin/sh\nexit 0\n');
  await chmod(path, 0o755);
  return { kind: 'script', program: 'agree' } as const;
}
