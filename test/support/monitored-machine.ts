import assert from 'node:assert/strict';
import { join } from 'node:path';
import type { MachineConfiguration } from '../../src/hypervisor/index.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { isFailure } from '../../src/lib/errors.ts';
import { runCommand } from '../../src/lib/processes.ts';
import { QmpClient } from '../../src/qmp/index.ts';
import { verifyPoint } from '../../src/replica/index.ts';
import type { NewDisk } from '../../src/replication/index.ts';
import { bytesOf } from './image-bytes.ts';
import { BY_HAND } from './lab-sites.ts';
import type { CleanUp } from './temporary.ts';
import { twoSites } from './two-sites.ts';

const MIB = 1024 * 1024;
/** Eight blocks of 64 KiB and a quarter of one. */
export const FIRST_BYTES = 540_672;
const VIRTIO = '/machine/peripheral/dev-disk/virtio-backend';

/** By disk: what it holds. */
export type Contents = ReadonlyMap<string, Buffer>;

/**
 * A machine without a guest, protected and not yet copied, with the disks `disk` and `steady`: what a guest would write is
 * written by the monitor of its owner, who also plugs disks in and out (`late`, at a SCSI controller: no guest need agree).
 */
export async function monitoredMachine(t: CleanUp, moreArguments: readonly string[] = []) {
  const sites = await twoSites(t);
  const pathOf = (diskId: string) => join(sites.directory, `${diskId}.qcow2`);
  const create = async (diskId: string, sizeBytes: number) => {
    await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', pathOf(diskId), String(sizeBytes)]);
    return { diskId, path: pathOf(diskId), sizeBytes };
  };
  const monitorPath = join(sites.directory, 'monitor');
  const machine = await sites.addMachine(
    [await create('disk', FIRST_BYTES), await create('steady', MIB)],
    [
      ...['-qmp', `unix:${monitorPath},server=on,wait=off`],
      ...['-device', 'virtio-scsi-pci,id=plugs', ...moreArguments],
    ],
  );
  await machine.start();
  await machine.protect({ ...BY_HAND, targetSiteId: sites.target.siteId });
  const monitors: QmpClient[] = [];
  const listen = async () => {
    const client = await QmpClient.connect({ path: monitorPath, clock: systemClock });
    monitors.push(client);
    t.after(() => client.close());
  };
  await listen();
  const monitor = () => monitors.at(-1)!;
  const contents = new Map<string, Buffer>([
    ['disk', Buffer.alloc(FIRST_BYTES)],
    ['steady', Buffer.alloc(MIB)],
  ]);
  const deviceOf = (diskId: string) =>
    diskId === 'disk'
      ? VIRTIO
      : (machine.record.disks.find((disk) => disk.diskId === diskId)?.deviceName ?? `dev-${diskId}`);
  const replica = () => sites.replicas.need(machine.record.machineId);
  return {
    ...{ sites, machine, replica, pathOf, create, monitor, listen },
    /** What the disks hold now. */
    contents: (): Contents => new Map([...contents].map(([diskId, bytes]) => [diskId, Buffer.from(bytes)])),
    write: async (pattern: number, offset: number, length: number, diskId = 'disk') => {
      const line = `qemu-io -d ${deviceOf(diskId)} "write -P ${pattern} ${offset} ${length}"`;
      const said = await monitor().execute('human-monitor-command', { 'command-line': line });
      assert.equal(said, '');
      contents.get(diskId)!.fill(pattern, offset, offset + length);
    },
    grow: async (sizeBytes: number, diskId = 'disk') => {
      const bytes = contents.get(diskId)!;
      const running = await monitor().execute('query-block');
      const { inserted } = (running as { qdev: string; inserted: { 'node-name': string } }[]).find(
        ({ qdev }) => qdev === deviceOf(diskId),
      )!;
      await monitor().execute('block_resize', { 'node-name': inserted['node-name'], size: sizeBytes });
      contents.set(diskId, Buffer.concat([bytes, Buffer.alloc(sizeBytes - bytes.length)]));
    },
    /** The disk is there from now on, as its owner's file or a chain of ours has it. */
    plugIn: async (diskId: string, path: string, sizeBytes: number) => {
      const nodes = await monitor().execute('query-named-block-nodes', { flat: true });
      // A file whose disk was plugged out is open still.
      const open = (nodes as { 'node-name': string; file: string; drv: string }[]).find(
        (node) => node.file === path && node.drv === 'qcow2',
      );
      const drive = open?.['node-name'] ?? `plug-${diskId}`;
      if (!open) {
        const file = { driver: 'file', filename: path };
        await monitor().execute('blockdev-add', { driver: 'qcow2', 'node-name': drive, file });
      }
      await monitor().execute('device_add', {
        ...{ driver: 'scsi-hd', id: `dev-${diskId}`, bus: 'plugs.0', drive },
      });
      if (!contents.has(diskId)) contents.set(diskId, Buffer.alloc(sizeBytes));
    },
    /** The disk as it is taken into the protection. */
    plugged: async (diskId: string): Promise<NewDisk> => {
      const running = machine.running!;
      const found = (await running.disks()).find(({ deviceName }) => deviceName === `dev-${diskId}`)!;
      const { disks } = await running.configuration({ [found.deviceName]: diskId });
      const { deviceName, chain, sizeBytes } = found;
      return { disk: { diskId, deviceName, chain: [...chain], sizeBytes }, configuration: disks[0]! };
    },
    plugOut: async (diskId: string) => {
      await monitor().execute('device_del', { id: `dev-${diskId}` });
      const isThere = async () =>
        ((await monitor().execute('query-block')) as { qdev?: string }[]).some(
          ({ qdev }) => qdev === `dev-${diskId}`,
        );
      while (await isThere()) await new Promise(setImmediate);
      contents.delete(diskId);
    },
    /** It came or went while the machine was off. */
    holds: (diskId: string, bytes: Buffer | undefined) =>
      bytes ? contents.set(diskId, bytes) : contents.delete(diskId),
    switchOff: async () => {
      // Its end may come before its answer.
      await monitor()
        .execute('quit')
        .catch((error: unknown) => assert.ok(isFailure(error, 'QMP_DISCONNECTED'), String(error)));
      await monitor().closed;
      while (machine.presence.state !== 'stopped') {
        // Its own connection ends in the same moment; it hears of that in a turn of its own.
        await new Promise(setImmediate);
        await machine.look();
      }
      await machine.look();
    },
    /** Proves the point, and compares what its disks read as with what the guest has written. */
    assertPoint: async (pointId: string, expected: Contents) => {
      await verifyPoint(sites.replicaTools, replica(), pointId);
      const { statement } = replica().point(pointId);
      const sizes = [...expected].map(([diskId, { length }]) => [diskId, length]);
      const sizesIn = (disks: readonly { diskId: string; sizeBytes: number }[]) =>
        disks.map(({ diskId, sizeBytes }) => [diskId, sizeBytes]);
      assert.deepEqual(sizesIn(statement.disks), sizes);
      assert.deepEqual(sizesIn((statement.configuration as MachineConfiguration).disks), sizes);
      for (const [diskId, bytes] of expected) {
        const found = await bytesOf(sites.protectedTools.images, replica().chain(pointId, diskId));
        assert.ok(found.equals(bytes), `${diskId} of ${pointId} does not read as the guest wrote it`);
      }
    },
  };
}
