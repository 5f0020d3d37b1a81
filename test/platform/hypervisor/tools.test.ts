import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { access, mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { constants, getPriority } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { QemuHypervisor, QemuImages } from '../../../src/hypervisor/index.ts';
import { sleep, systemClock } from '../../../src/lib/clock.ts';
import { exitOf, runCommand } from '../../../src/lib/processes.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

const OPENER = join(import.meta.dirname, '..', '..', 'support', 'image-opener.ts');

test('what reads an image for us leaves the processors to the guests', async (t) => {
  const path = join(await temporaryDirectory(t), 'disk.qcow2');
  await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', path, '1M']);
  await using _reader = await new QemuImages({ clock: systemClock }).open([{ path, format: 'qcow2' }]);
  const servers = await childrenCalled('qemu-nbd');
  assert.equal(servers.length, 1);
  const lowest = constants.priority.PRIORITY_LOW;
  assert.equal(getPriority(servers[0]), Math.min(lowest, getPriority() + 10));
});

test('an image that is open has no socket that a killed process could leave behind', async (t) => {
  const path = join(await temporaryDirectory(t), 'disk.qcow2');
  await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', path, '1M']);
  await using reader = await new QemuImages({ clock: systemClock }).open([{ path, format: 'qcow2' }]);
  const [server] = await childrenCalled('qemu-nbd');
  const socket = /--socket=([^\0]+)/.exec(readFileSync(`/proc/${server}/cmdline`, 'utf8'))?.[1];
  assert.ok(socket);
  await assert.rejects(access(dirname(socket)), { code: 'ENOENT' });
  await reader.readInto(Buffer.alloc(4096), 0);
});

test('a tool whose parent was killed before the kernel had been told to end it with that does not begin', async (t) => {
  const directory = await temporaryDirectory(t);
  const path = join(directory, 'disk.qcow2');
  await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', path, '1M']);
  const [begun, go] = [join(directory, 'begun'), join(directory, 'go')];
  await runCommand('mkfifo', [begun, go]);
  const { stdout } = await runCommand('sh', ['-c', 'command -v setpriv']);
  const late = `#!/bin/sh\necho $$ >${begun}\nread -r word <${go}\nexec ${stdout.trim()} "$@"\n`;
  await writeFile(join(directory, 'setpriv'), late, { mode: 0o755 });

  const parent = spawn(process.execPath, [OPENER, path], {
    env: { ...process.env, PATH: `${directory}:${process.env.PATH}` },
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  t.after(() => parent.kill('SIGKILL'));
  const tool = Number(await readFile(begun, 'utf8'));
  t.after(() => {
    if (isThere(tool)) process.kill(tool, 'SIGKILL');
  });
  parent.kill('SIGKILL');
  await exitOf(parent);
  await writeFile(go, 'go\n');
  const deadlineMs = systemClock.monotonicMs() + 10_000;
  while (isThere(tool)) {
    assert.ok(systemClock.monotonicMs() < deadlineMs, 'it runs on, and holds the file locked');
    await sleep(systemClock, 20);
  }
});

function isThere(pid: number): boolean {
  return existsSync(`/proc/${pid}`);
}

/** Ids of our own children that run a program of this name (proc(5), /proc/PID/stat). */
test('a machine that ends before its process is known is one that does not run', async (t) => {
  const directory = await temporaryDirectory(t);
  const { stdout } = await runCommand('sh', ['-c', 'command -v qemu-system-x86_64']);
  const [run, disk] = [join(directory, 'run'), join(directory, 'disk.qcow2')];
  await mkdir(run);
  await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', disk, '1M']);
  const pid = join(run, 'pid');
  // QEMU removes its file when it ends.
  const brief = `#!/bin/sh\n${stdout.trim()} "$@" || exit\nkill $(cat ${pid})\nwhile [ -e ${pid} ]; do sleep 0.01; done\n`;
  await writeFile(join(directory, 'qemu-system-x86_64'), brief, { mode: 0o755 });
  const hypervisor = new QemuHypervisor({ clock: systemClock });
  // Asked before: it is another machine that is to be brief.
  await hypervisor.acceleration();
  const { PATH } = process.env;
  t.after(() => {
    process.env.PATH = PATH;
  });
  process.env.PATH = `${directory}:${PATH}`;
  const starting = hypervisor.start({
    configuration: {
      ...{ name: 'brief', uuid: '6a1c5a5e-0000-4000-8000-00000000000d', architecture: 'x86_64' },
      ...{ chipset: 'q35', firmware: 'bios', cpus: 1, memoryBytes: 16 * 1024 * 1024 },
      ...{ nics: [], guestAgent: false },
      disks: [{ diskId: 'one', bus: 'virtio-blk', sizeBytes: 1024 * 1024 }],
    },
    ...{ disks: { one: [{ path: disk, format: 'qcow2' }] }, runDirectory: run },
  });
  await assert.rejects(starting, { code: 'MACHINE_NOT_RUNNING' });
});

async function childrenCalled(name: string): Promise<number[]> {
  const ids = (await readdir('/proc')).map(Number).filter(Number.isInteger);
  return ids.filter((id) => {
    const parent = parentOf(id, name);
    return parent === process.pid;
  });
}

function parentOf(id: number, name: string): number | undefined {
  try {
    const stat = readFileSync(`/proc/${id}/stat`, 'utf8');
    if (!stat.includes(`(${name})`)) return undefined;
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
  } catch {
    return undefined; // It has ended since it was listed.
  }
}
