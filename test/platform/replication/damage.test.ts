/** Damage, conflict and lack of space: each is named or refused, and what can go on goes on. */
import assert from 'node:assert/strict';
import { chmod, open, readFile, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import type { UploadChunk } from '../../../src/peer/index.ts';
import { Replicas, verifyPoint } from '../../../src/replica/index.ts';
import { ProtectedMachine, type ReplicationTarget } from '../../../src/replication/index.ts';
import { assertLedger, copyAndSend, inGuest, labSites, sendAll } from '../../support/lab-sites.ts';
import { limitedFiles } from '../../support/limited-files.ts';

const MIB = 1024 * 1024;

describe('damage and conflict', { timeout: 240_000 }, () => {
  it('S0.10 S0.11', async (t) => {
    const files = limitedFiles(nodeFiles);
    const replicaFiles = limitedFiles(nodeFiles);
    const lab = await labSites(t, { tools: { files, replicaFiles } });
    const { machine, sites } = lab;
    const { target } = sites;
    const ledger = await lab.ledger();
    await ledger.reached(20, 60_000);
    await copyAndSend(machine, target);
    await ledger.next();
    const { pointId: middle } = await copyAndSend(machine, target);
    const write = (mib: number) =>
      inGuest(
        machine.record.sockets.agentPath!,
        `labtool fill --file /data/f --bytes ${mib * MIB} --seed ${mib} --pattern random && sync`,
      );

    await t.test(
      'a bit that turns on the wire is refused, and the delta goes on from what is durable',
      async () => {
        await write(8);
        const { cutId } = await machine.cut('crash');
        await assert.rejects(machine.replicate(flipping(target, 4 * MIB)), (error: { code: string }) => {
          t.diagnostic(`turned on the wire: ${error.code}`);
          return /^DELTA_/.test(error.code);
        });
        assert.notEqual(lab.replica().newest?.statement.pointId, cutId);
        assert.equal(machine.targets[0]!.unsent.length, 1);
        await sendAll(machine, target);
        await verifyPoint(sites.replicaTools, lab.replica(), cutId);
      },
    );

    await t.test('a receiver without space refuses and goes on when there is some', async () => {
      await write(16);
      const { cutId } = await machine.cut('crash');
      replicaFiles.roomBytes = 4 * MIB;
      await assert.rejects(machine.replicate(target), { code: 'DISK_FULL' });
      assert.equal(machine.targets[0]!.unsent.length, 1);
      assert.equal(await machine.running!.state(), 'running');
      replicaFiles.roomBytes = Number.POSITIVE_INFINITY;
      await sendAll(machine, target);
      await verifyPoint(sites.replicaTools, lab.replica(), cutId);
    });

    await t.test('a sender without space cuts nothing and lets the machine run', async () => {
      const before = machine.cuts.length;
      const tips = machine.record.disks.map(({ diskId }) => machine.chain(diskId));
      for (const roomBytes of [0, 700, 3000]) {
        files.roomBytes = roomBytes;
        await assert.rejects(machine.cut('crash'), { code: 'DISK_FULL' });
        await ledger.next();
      }
      files.roomBytes = Number.POSITIVE_INFINITY;
      assert.deepEqual(
        machine.record.disks.map(({ diskId }) => machine.chain(diskId)),
        tips,
      );
      assert.equal(machine.cuts.length, before);
      const promised = ledger.last!.seq;
      const { pointId } = await copyAndSend(machine, target);
      const { images } = sites.protectedTools;
      await assertLedger(images, (disk) => lab.replica().chain(pointId, disk), promised);
    });

    await t.test('a target that lost what it had is a conflict; nothing is sent or merged', async () => {
      await machine.cut('crash');
      const chains = machine.record.disks.map(({ diskId }) => machine.chain(diskId));
      const forgetful: ReplicationTarget = { ...bound(target), describe: async () => null };
      await assert.rejects(machine.replicate(forgetful), {
        code: 'REPLICATION_CONFLICT',
        message: /target-behind/,
      });
      // A stream with a parent that is not the newest point, from a sender that believes otherwise.
      const newest = lab.replica().describe().newest!;
      const believing: ReplicationTarget = {
        ...bound(target),
        describe: async (machineId) => ({ ...(await target.describe(machineId))!, newest }),
        offer: (header, details) =>
          target.offer({ ...header, parent: { pointId: middle, statementDigest: 'f'.repeat(64) } }, details),
      };
      await assert.rejects(machine.replicate(believing), {
        code: 'REPLICATION_CONFLICT',
        message: /parent/,
      });
      assert.deepEqual(
        machine.record.disks.map(({ diskId }) => machine.chain(diskId)),
        chains,
      );
      await sendAll(machine, target);
    });

    await t.test('S0.11 lost digests of the sender are computed anew from its disks', async () => {
      const directory = join(machine.layout.leaves, 'data');
      await rename(directory, `${directory}.lost`);
      await machine.release();
      const again = await ProtectedMachine.open(sites.protectedTools, machine.layout);
      assert.equal((await again.attach()).state, 'running');
      const { pointId, wireBytes } = await copyAndSend(again, target);
      assert.ok(wireBytes < 8 * MIB, `${wireBytes} bytes`);
      await verifyPoint(sites.replicaTools, lab.replica(), pointId);
      assert.ok(sites.log.events.some(({ event }) => event === 'digests.lost'));
      await again.release();
    });

    await t.test('one turned bit in a layer, the digests or the manifest is named', async () => {
      const replica = lab.replica();
      const { layout } = replica;
      const newest = replica.newest!.statement.pointId;
      const layer = layout.layer('data', newest);
      const place = await dataOffset(layer);
      await flipped(layer, place.fileOffset, async () => {
        await assert.rejects(
          verifyPoint(sites.replicaTools, replica, newest),
          (error: Error & { code: string }) => {
            assert.equal(error.code, 'REPLICA_LAYER_DAMAGED');
            assert.match(error.message, /^data of /);
            assert.ok(error.message.includes(String(place.blockOffset)), error.message);
            return true;
          },
        );
        // Older points do not lie on it.
        await verifyPoint(sites.replicaTools, replica, middle);
      });
      await verifyPoint(sites.replicaTools, replica, newest);

      const reopened = async () => {
        const { broken } = await Replicas.open(sites.replicaTools, join(sites.directory, 'r'));
        return broken.map(({ error }) => (error as { code?: string }).code);
      };
      assert.deepEqual(await reopened(), []);
      await flipped(layout.leaves('data', newest), 100, async () => {
        assert.deepEqual(await reopened(), ['DELTA_LEAVES_CORRUPT']);
      });
      // Damage that leaves a manifest readable is found by its signature, before anything is said of the content.
      const noticedAs = async (): Promise<string | undefined> => {
        const opened = await Replicas.open(sites.replicaTools, join(sites.directory, 'r'));
        if (opened.broken[0]) return (opened.broken[0].error as { code?: string }).code;
        return verifyPoint(sites.replicaTools, opened.list()[0]!, newest).then(
          () => undefined,
          (failure) => failure.code,
        );
      };
      const manifest = layout.manifest(newest);
      const text = await readFile(manifest, 'utf8');
      const places = { '"record"': 1, '"root"': 10, '"cutAtMs"': 14, '"signature"': 20 };
      const codes: (string | undefined)[] = [];
      for (const [word, further] of Object.entries(places)) {
        assert.ok(text.includes(word), word);
        await flipped(manifest, text.indexOf(word) + further, async () => {
          codes.push(await noticedAs());
        });
      }
      // The root is held against the stored digests at every opening already, if it still looks like one.
      const [head, root, ...signed] = codes;
      assert.equal(head, 'RECORD_CORRUPT');
      assert.ok(root === 'REPLICA_LAYER_DAMAGED' || root === 'RECORD_CORRUPT', root);
      assert.deepEqual(signed, ['REPLICA_SIGNATURE_INVALID', 'REPLICA_SIGNATURE_INVALID']);
      assert.deepEqual(await reopened(), []);
    });

    await t.test('S0.17 of a fenced sender nothing is sent or merged', async () => {
      const again = await ProtectedMachine.open(sites.protectedTools, machine.layout);
      await again.attach();
      await again.cut('crash');
      const chains = () => again.record.disks.map(({ diskId }) => again.chain(diskId));
      const held = () => [chains(), lab.replica().newest!.statement.pointId];
      const before = held();
      await lab.replica().update({ epoch: 2 });
      // The second time it knows by itself.
      for (const _time of [1, 2]) {
        await assert.rejects(again.replicate(target), { code: 'PROTECTION_FENCED' });
        assert.deepEqual(held(), before);
      }
      await assert.rejects(again.cut('crash'), { code: 'PROTECTION_FENCED' });
      assert.deepEqual(held(), before);
      await again.release();
    });
  });
});

function bound(target: ReplicationTarget): ReplicationTarget {
  return {
    siteId: target.siteId,
    seeds: target.seeds,
    describe: target.describe.bind(target),
    offer: target.offer.bind(target),
    upload: target.upload.bind(target),
  };
}

/** A line that turns one bit, `after` so many bytes. */
function flipping(target: ReplicationTarget, after: number): ReplicationTarget {
  return {
    ...bound(target),
    upload: (machineId, session, stream) => target.upload(machineId, session, turned(stream, after)),
  };
}

async function* turned(stream: AsyncIterable<UploadChunk>, after: number): AsyncGenerator<Uint8Array> {
  let at = 0;
  for await (const chunk of stream) {
    for (const part of chunk instanceof Uint8Array ? [chunk] : chunk) {
      const bytes = Buffer.from(part);
      if (at <= after && after < at + bytes.length) bytes[after - at]! ^= 0x10;
      at += bytes.length;
      yield bytes;
    }
  }
}

/** A place in a layer's file that holds guest data of its own, and the 64 KiB block of the guest that it belongs to. */
async function dataOffset(layer: string): Promise<{ fileOffset: number; blockOffset: number }> {
  const { stdout } = await runCommand('qemu-img', ['map', '-f', 'qcow2', '--output=json', layer]);
  const own = (JSON.parse(stdout) as { depth: number; data: boolean; offset?: number; start: number }[]).find(
    ({ depth, data, offset }) => depth === 0 && data && offset !== undefined,
  )!;
  return { fileOffset: own.offset! + 1, blockOffset: Math.floor(own.start / 65_536) * 65_536 };
}

/** Runs `work` while one bit of a file is turned. */
async function flipped(path: string, offset: number, work: () => Promise<void>): Promise<void> {
  const turn = async () => {
    await chmod(path, 0o600);
    await using file = await open(path, 'r+');
    const byte = Buffer.alloc(1);
    await file.read(byte, 0, 1, offset);
    byte[0]! ^= 0x01;
    await file.write(byte, 0, 1, offset);
  };
  await turn();
  try {
    await work();
  } finally {
    await turn();
  }
}
