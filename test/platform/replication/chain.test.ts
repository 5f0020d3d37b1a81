/** One guest, its ledger running, through cuts, transfers and merges. */
import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { describe, it } from 'node:test';
import type { MachineEvent } from '../../../src/hypervisor/index.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import { verifyPoint } from '../../../src/replica/index.ts';
import { assertSameOrder, assertTipAloneIsWritable, backingChain } from '../../support/chain-order.ts';
import {
  assertLedger,
  assertSameContent,
  copyAndSend,
  inGuest,
  type LabSites,
  labSites,
  sendAll,
} from '../../support/lab-sites.ts';
import { sized, sizedLimitMs } from '../../support/size.ts';

const MIB = 1024 * 1024;

/** Block nodes and states of the machine over a monitor of the test's own. */
class Monitor {
  readonly #path: string;
  constructor(path: string) {
    this.#path = path;
  }

  /** One command, one connection: QEMU serves one client at a time. */
  execute(command: string, args: object = {}): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const socket = connect(this.#path);
      let text = '';
      socket.once('error', reject);
      socket.setEncoding('utf8').on('data', (chunk) => {
        text += String(chunk);
        const answers = text
          .split('\n')
          .filter((line) => line.includes('"return"') || line.includes('"error"'));
        if (answers.length < 2) return;
        socket.destroy();
        const { return: value, error } = JSON.parse(answers[1]!);
        if (error) reject(new Error(error.desc));
        else resolve(value);
      });
      const line = (execute: string, more: object) => `${JSON.stringify({ execute, arguments: more })}\n`;
      socket.write(line('qmp_capabilities', {}) + line(command, args));
    });
  }

  async blockNodes(): Promise<unknown[]> {
    return (await this.execute('query-named-block-nodes', { flat: true })) as unknown[];
  }
}

const systemAndData = ['system', 'data'] as const;

const LIMIT = { timeout: sizedLimitMs({ normal: 300_000, full: 7_200_000 }) };

describe('replication of a machine that runs', LIMIT, () => {
  it('S0.2 S0.3 S0.12 S0.13 S0.14 S0.15', async (t) => {
    const lab = await labSites(t, { protection: { copyTypes: [{ name: 'kept', aim: 'crash' }] } });
    const ledger = await lab.ledger();
    await ledger.reached(20, 60_000);
    const { machine, sites } = lab;
    const { images } = sites.protectedTools;
    const events: MachineEvent[] = [];
    machine.onEvent((event) => events.push(event));

    await t.test(
      'S0.2 S0.12 ten cuts leave one writable tip on read-only parents, and the guest runs on',
      async () => {
        for (let i = 0; i < 8; i++) {
          await machine.cut('crash');
          await ledger.next();
        }
        assert.deepEqual(await depths(), [9, 9]);
        // From here on the youngest that wait are joined.
        await machine.cut('app');
        await machine.cut('crash');
        await ledger.next();
        assert.deepEqual(await depths(), [10, 10]);
        assert.equal(await machine.running!.state(), 'running');
        assert.deepEqual(
          events.filter(({ name }) => /STOP|ERROR|SHUTDOWN|PANIC/.test(name)),
          [],
        );
        const promised = ledger.last!.seq;
        await machine.cut('crash');
        const unsent = machine.targets[0]!.unsent.map(({ cutId }) => cutId);
        await sendAll(machine, sites.target);
        const points = lab.replica().points.map(({ statement }) => statement.pointId);
        assert.deepEqual(points, unsent);
        await assertLedger(images, (disk) => lab.replica().chain(points.at(-1)!, disk), promised);
      },
    );

    await t.test(
      'S0.13 layers at the recovery site name their siblings and nothing of the protected site',
      async () => {
        const replica = lab.replica();
        const newest = replica.newest!.statement.pointId;
        for (const diskId of systemAndData) {
          const chain = replica.chain(newest, diskId);
          for (const [index, { path }] of chain.entries()) {
            const { stdout } = await runCommand('qemu-img', ['info', '-f', 'qcow2', '--output=json', path]);
            const info = JSON.parse(stdout);
            assert.equal(info['full-backing-filename'], index === 0 ? undefined : chain[index - 1]!.path);
            assert.ok(!String(info['backing-filename'] ?? '').includes('/'));
          }
        }
      },
    );

    await t.test(
      'S0.12 what both sides hold lies in the same order at both, before and after merges',
      async () => {
        const commit = machine.running!.commit.bind(machine.running!);
        let commits = 0;
        machine.running!.commit = async (...layer) => {
          if (commits === 0) throw new Error('no layer goes down now');
          commits -= 1;
          await commit(...layer);
        };
        try {
          for (const type of ['kept', 'crash', 'kept', 'crash', 'kept'])
            await copyAndSend(machine, sites.target, type);
          assert.equal(await assertSameOrder(machine, lab.replica()), 6, 'with what was there before');
          // Two layers of both disks go down here, and some of the points in the middle there.
          commits = 4;
          await copyAndSend(machine, sites.target);
          assert.equal(await assertSameOrder(machine, lab.replica()), 5);
          await lab.replica().retire({ types: { crash: 1, kept: 2 } }, () => false);
          assert.equal(await assertSameOrder(machine, lab.replica()), 3);
        } finally {
          machine.running!.commit = commit;
        }
        await copyAndSend(machine, sites.target);
        assert.equal(await assertSameOrder(machine, lab.replica()), 1);
      },
    );

    await t.test('S0.3 64 MiB of random bytes cost no more than 1.1 times that on the wire', async () => {
      await copyAndSend(machine, sites.target);
      const script = 'labtool fill --file /data/random --bytes 67108864 --seed 7 --pattern random && sync';
      await inGuest(machine.record.sockets.agentPath!, script);
      const { wireBytes } = await copyAndSend(machine, sites.target);
      t.diagnostic(`64 MiB written, ${(wireBytes / MIB).toFixed(2)} MiB on the wire`);
      assert.ok(wireBytes > 64 * MIB, 'random bytes cannot be less');
      assert.ok(wireBytes <= 64 * MIB * 1.1, `${wireBytes} bytes`);
    });

    await t.test(
      'S0.3 what the guest discards crosses the wire as zeros and is zero at the recovery site',
      async () => {
        await inGuest(machine.record.sockets.agentPath!, 'rm /data/random && sync && fstrim /data && sync');
        const { pointId, wireBytes } = await copyAndSend(machine, sites.target);
        assert.ok(wireBytes < 4 * MIB, `${wireBytes} bytes for discarded ones`);
        await verifyPoint(sites.replicaTools, lab.replica(), pointId);
        await using reader = await images.open(lab.replica().chain(pointId, 'data'));
        const { data } = await reader.contentExtents();
        const heldBytes = data.reduce((sum, { length }) => sum + length, 0);
        assert.ok(heldBytes < 64 * MIB, `${heldBytes} bytes are still there`);
      },
    );

    await t.test(
      'S0.14 quick cuts leave a chain of two, no node behind, and the content as it was',
      async () => {
        const cuts = sized({ what: 'S0.14: quick cuts', normal: 6, full: 720 });
        const { qmpPath } = machine.record.sockets;
        const promised = ledger.last!.seq;
        for (let i = 0; i < cuts; i++) {
          const { cutId } = await machine.cut('crash');
          await sendAll(machine, sites.target);
          for (const disk of await machine.running!.disks())
            assert.ok(disk.chain.length <= 3, `depth ${disk.chain.length}`);
          // What was merged away is gone from the disk as well.
          for (const diskId of systemAndData) {
            const files = (await sites.protectedTools.files.list(machine.layout.disk(diskId)))!;
            assert.ok(files.length <= 2, files.join(' '));
          }
          if (i % 5 === 0) await lab.replica().retire({ types: { crash: 3, app: 1 } }, () => false);
          assert.equal(lab.replica().newest!.statement.pointId, cutId);
        }
        await machine.release();
        const nodes = (await new Monitor(qmpPath).blockNodes()).length;
        assert.ok(nodes <= 16, `${nodes} block nodes after ${cuts} cuts of 2 disks`);
        assert.equal((await machine.attach()).state, 'running');
        await verifyPoint(sites.replicaTools, lab.replica(), lab.replica().newest!.statement.pointId);
        await assertLedger(
          images,
          (disk) => lab.replica().chain(lab.replica().newest!.statement.pointId, disk),
          promised,
        );
      },
    );

    await t.test('S0.14 the content of the chain is the same before and after a merge', async () => {
      await new Paused(lab).run(async () => {
        const { cutId } = await machine.cut('crash');
        const before = new Map(machine.record.disks.map(({ diskId }) => [diskId, machine.chain(diskId)]));
        await sendAll(machine, sites.target);
        for (const { diskId } of machine.record.disks) {
          assert.notDeepEqual(machine.chain(diskId), before.get(diskId));
          // The guest writes nothing, so that all of what the chain is lies below the tip.
          const sealed = machine.chain(diskId).slice(0, -1);
          await assertSameContent(images, sealed, lab.replica().chain(cutId, diskId));
        }
      });
    });

    await t.test('S0.15 S0.16 the replica is as deep as retention says', async () => {
      await copyAndSend(machine, sites.target, 'app');
      for (let i = 0; i < 6; i++) await copyAndSend(machine, sites.target);
      const replica = lab.replica();
      await replica.retire({ types: { crash: 4, app: 1 } }, () => false);
      const kinds = replica.points.map(({ statement }) => statement.consistency);
      assert.deepEqual(kinds, ['application', 'crash', 'crash', 'crash', 'crash']);
      for (const diskId of systemAndData) {
        assert.equal(replica.chain(replica.newest!.statement.pointId, diskId).length, 5);
        assert.equal((await layersIn(replica.layout.disk(diskId))).length, 5);
      }
      for (const { statement } of replica.points)
        await verifyPoint(sites.replicaTools, replica, statement.pointId);
    });

    /** Of the chains in QEMU, which are those of the record and of the headers. */
    async function depths(): Promise<number[]> {
      const disks = await machine.running!.disks();
      await machine.release();
      const nodes = await new Monitor(machine.record.sockets.qmpPath).blockNodes();
      await machine.attach();
      for (const { deviceName, chain } of disks) {
        const { diskId } = machine.record.disks.find((disk) => disk.deviceName === deviceName)!;
        const paths = chain.map(({ path }) => path);
        assert.deepEqual(chain, machine.chain(diskId));
        assert.deepEqual(await backingChain(paths.at(-1)!), paths);
        assertTipAloneIsWritable(nodes, chain);
      }
      return disks.map(({ chain }) => chain.length);
    }

    async function layersIn(directory: string): Promise<string[]> {
      return ((await sites.protectedTools.files.list(directory)) ?? []).filter((name) =>
        name.endsWith('.qcow2'),
      );
    }
  });
});

/** Stops the guest's CPUs for as long as `work` runs. */
class Paused {
  readonly #lab: LabSites;
  constructor(lab: LabSites) {
    this.#lab = lab;
  }
  async run(work: () => Promise<void>): Promise<void> {
    const { machine } = this.#lab;
    const monitor = new Monitor(machine.record.sockets.qmpPath);
    await machine.release();
    await monitor.execute('stop');
    await machine.attach();
    try {
      await work();
    } finally {
      await machine.running?.resume();
    }
  }
}
