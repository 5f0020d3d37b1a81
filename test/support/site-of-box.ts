import assert from 'node:assert/strict';
import { join } from 'node:path';
import { systemClock } from '../../src/lib/clock.ts';
import { runCommand } from '../../src/lib/processes.ts';
import { systemRandom } from '../../src/lib/random.ts';
import { retrying } from '../../src/lib/retry.ts';
import type { TestApi } from './api.ts';
import { ledgerPortOf } from './lab-guest.ts';
import { BOX, machineThatIsOff, pairedSites, resultOf, someonesMachine } from './paired-sites.ts';
import type { TestSite } from './served-sites.ts';
import type { CleanUp } from './temporary.ts';

const MIB = 1024 * 1024;
export const DISK_BYTES = 32 * MIB;
/** No schedule: copies are made on our word alone. */
export const BY_HAND = { every: {}, retention: { types: { crash: 3, app: 0 } } };

/** Two paired sites, and a machine of the first that does not run. */
export async function sitesWithMachine(context: CleanUp) {
  const sites = await pairedSites(context);
  const disk = join(sites.directory, 'disk.qcow2');
  await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', disk, String(DISK_BYTES)]);
  await write(disk, 1, 0, 4 * MIB);
  const body = machineThatIsOff({ path: disk, sizeBytes: DISK_BYTES, format: 'qcow2' });
  await sites.homeApi.call('vm.add', { body });
  return { ...sites, disk };
}

/** Two paired sites, and a guest of the first that writes its ledger all the time; the second one has a copy, and gets more on our word. */
export async function sitesWithGuest(context: CleanUp) {
  const sites = await pairedSites(context);
  const { lab, attach } = await someonesMachine(sites.t, sites.directory);
  const ledger = await ledgerPortOf(sites.t, lab);
  await sites.homeApi.call('vm.add', { body: { attach } });
  await sites.homeApi.call('vm.protect', { ...BOX, body: BY_HAND });
  await verifiedCopy(sites.homeApi);
  return { ...sites, lab, ledger };
}

/** Writes as the guest would: to the file that the machine would be started from. */
export async function write(path: string, pattern: number, offset: number, length: number): Promise<void> {
  await runCommand('qemu-io', ['-f', 'qcow2', '-c', `write -q -P ${pattern} ${offset} ${length}`, path]);
}

export async function writeToTip(api: TestApi, pattern: number, offset: number, of = BOX): Promise<void> {
  const { protected: home } = await api.call('vm.show', of);
  const tip = home!.disks[0]!.chain.at(-1)!.path;
  // The merge that follows an acknowledgement holds the lock of the file for a moment.
  const backoff = { firstMs: 50, maximumMs: 200, triesMax: 50 };
  await retrying({ clock: systemClock, random: systemRandom }, backoff, () =>
    write(tip, pattern, offset, MIB),
  );
}

/** Makes a copy and waits until the recovery site has it verified. */
export async function verifiedCopy(api: TestApi, of = BOX): Promise<{ pointId: string; sequence: number }> {
  const created = await api.call('point.create', { ...of, body: { type: 'crash', wait: true } });
  assert.ok('job' in created);
  return (await resultOf(api, created.job)) as { pointId: string; sequence: number };
}

/** How another site holds the machine that was at home at this one; undefined if none does. */
export async function heldAt(api: TestApi): Promise<string | undefined> {
  return (await api.call('vm.show', BOX)).protected!.heldBy?.how;
}

/** A site that ends and starts again, which the other one finds at its new port. */
export async function servedAgain(site: TestSite, name: string, other?: TestApi): Promise<TestApi> {
  await site.close();
  const api = await site.serve();
  const { port } = site.served.site.peerAddress;
  await other?.call('peer.address', { params: { peer: name }, body: { host: '127.0.0.1', port } });
  return api;
}

/** Whether a MiB of a chain, read from its youngest file, is all of one pattern. */
export async function holds(path: string, pattern: number, offset: number): Promise<boolean> {
  const read = `read -q -P ${pattern} ${offset} ${MIB}`;
  try {
    await runCommand('qemu-io', ['-r', '-U', '-f', 'qcow2', '-c', read, path]);
    return true;
  } catch (error) {
    if (error instanceof Error && error.message.includes('verification failed')) return false;
    throw error;
  }
}

/** The file that the machine writes to. */
export async function tipAt(api: TestApi): Promise<string> {
  return (await api.call('vm.show', BOX)).protected!.disks[0]!.chain.at(-1)!.path;
}
