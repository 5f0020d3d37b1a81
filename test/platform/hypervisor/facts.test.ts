/** Facts about QEMU that no other test would notice if they changed: see docs/qemu.md. Nothing boots. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type LabMachine, startLabMachine } from '../../../lab/index.ts';
import { QemuImages } from '../../../src/hypervisor/index.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import { EMPTY_MACHINE } from '../../support/started.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

const BASE_BYTES = 8 * 1024 * 1024;

async function machineOn(t: TestContext, directory: string, ...names: string[]): Promise<LabMachine> {
  const disks = names.map((name) => ({
    name,
    path: join(directory, `${name}.qcow2`),
    format: 'qcow2' as const,
  }));
  for (const { path } of disks)
    await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', path, String(BASE_BYTES)]);
  const machine = await startLabMachine({ directory, disks, memoryMb: 16 });
  t.after(() => machine.stop());
  return machine;
}

/** An overlay as somebody makes it who does not name the backing file: only the running machine knows it then. */
async function addOverlay(machine: LabMachine, directory: string, name: string): Promise<string> {
  const path = join(directory, `${name}.qcow2`);
  await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', path, String(BASE_BYTES)]);
  const file = { driver: 'file', filename: path };
  await machine.execute('blockdev-add', { driver: 'qcow2', 'node-name': name, backing: null, file });
  return path;
}

const snapshot = (node: string, overlay: string) => ({ type: 'blockdev-snapshot', data: { node, overlay } });

async function backingNameOf(path: string): Promise<string | undefined> {
  const { stdout } = await runCommand('qemu-img', ['info', '-U', '-f', 'qcow2', '--output=json', path]);
  return JSON.parse(stdout)['backing-filename'];
}

async function nodeNames(machine: LabMachine): Promise<string[]> {
  const nodes = (await machine.execute('query-named-block-nodes', { flat: true })) as {
    'node-name': string;
  }[];
  return nodes.map((node) => node['node-name']);
}

test('a snapshot does not write the backing file into the header of the overlay', async (t) => {
  const directory = await temporaryDirectory(t);
  const machine = await machineOn(t, directory, 'base');
  const overlay = await addOverlay(machine, directory, 'top');
  await machine.execute('transaction', { actions: [snapshot('base', 'top')] });
  assert.equal(await backingNameOf(overlay), undefined);
});

test('a transaction of snapshots is all or nothing', async (t) => {
  const directory = await temporaryDirectory(t);
  const machine = await machineOn(t, directory, 'a', 'b');
  await addOverlay(machine, directory, 'above-a');
  const actions = [snapshot('a', 'above-a'), snapshot('b', 'nothing')];
  await assert.rejects(machine.execute('transaction', { actions }));
  const devices = (await machine.execute('query-block')) as { inserted?: { 'node-name': string } }[];
  assert.deepEqual(
    devices.map(({ inserted }) => inserted?.['node-name']),
    ['a', 'b'],
  );
});

test('a commit writes the name given into the layer above, and leaves the committed node to be deleted', async (t) => {
  const directory = await temporaryDirectory(t);
  const machine = await machineOn(t, directory, 'base');
  await addOverlay(machine, directory, 'middle');
  await machine.execute('transaction', { actions: [snapshot('base', 'middle')] });
  const top = await addOverlay(machine, directory, 'top');
  await machine.execute('transaction', { actions: [snapshot('middle', 'top')] });
  const ended = new Promise<void>((resolve) => {
    machine.subscribe(({ event }) => event === 'BLOCK_JOB_COMPLETED' && resolve());
  });
  await machine.execute('block-commit', {
    ...{
      'job-id': 'c',
      device: 'top',
      'top-node': 'middle',
      'base-node': 'base',
      'backing-file': '/somewhere/base',
    },
  });
  await ended;
  assert.equal(await backingNameOf(top), '/somewhere/base');
  assert.ok((await nodeNames(machine)).includes('middle'));
  await machine.execute('blockdev-del', { 'node-name': 'middle' });
  assert.ok(!(await nodeNames(machine)).includes('middle'));
});

test('a node that another one has as its backing file cannot be deleted', async (t) => {
  const directory = await temporaryDirectory(t);
  const machine = await machineOn(t, directory, 'base');
  await addOverlay(machine, directory, 'top');
  await machine.execute('transaction', { actions: [snapshot('base', 'top')] });
  await assert.rejects(machine.execute('blockdev-del', { 'node-name': 'base' }), /used as backing/);
});

test('what a machine writes is locked against readers, what lies below is not', async (t) => {
  const directory = await temporaryDirectory(t);
  const machine = await machineOn(t, directory, 'base');
  const images = new QemuImages({ clock: systemClock });
  const base = { path: join(directory, 'base.qcow2'), format: 'qcow2' as const };
  await assert.rejects(images.open([base]), { code: 'IMAGE_UNREADABLE', message: /lock/ });
  await addOverlay(machine, directory, 'top');
  await machine.execute('transaction', { actions: [snapshot('base', 'top')] });
  await using reader = await images.open([base]);
  assert.equal(reader.sizeBytes, BASE_BYTES);
});

test('-daemonize ends at once when the sandbox denies fork or setsid', async (t) => {
  const directory = await temporaryDirectory(t);
  const pidFile = join(directory, 'pid');
  const start = (sandbox: string) =>
    runCommand(
      'qemu-system-x86_64',
      [...EMPTY_MACHINE, '-S', ...['-sandbox', sandbox, '-daemonize', '-pidfile', pidFile]],
      { allowExit: [1, 128, 159] },
    );
  for (const denied of ['spawn=deny', 'elevateprivileges=deny']) {
    const { exitCode } = await start(`on,${denied}`);
    if (exitCode === 0) process.kill(Number.parseInt(await readFile(pidFile, 'utf8'), 10), 'SIGKILL');
    assert.notEqual(exitCode, 0, denied);
  }
});
