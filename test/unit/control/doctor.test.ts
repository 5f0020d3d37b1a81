/** What the doctor finds of machines and files, without a host to ask. */
import assert from 'node:assert/strict';
import { chmod, mkdir, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { keysFinding, rightsFinding } from '../../../src/control/watch/file-checks.ts';
import {
  type CheckedMachine,
  checkedMachine,
  disksFinding,
  machineFinding,
} from '../../../src/control/watch/machine-checks.ts';
import { modesIn } from '../../../src/lib/host-files.ts';
import type { MachineRecord } from '../../../src/replication/index.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

const RUNNING = { state: 'running', processId: 1 } as const;

async function ground(t: Parameters<typeof temporaryDirectory>[0]) {
  const directory = await temporaryDirectory(t);
  const paths = { qmpPath: join(directory, 'vm', 'qmp'), agentPath: join(directory, 'vm', 'qga') };
  const disk = join(directory, 'disk.raw');
  await mkdir(join(directory, 'vm'));
  for (const path of [paths.qmpPath, paths.agentPath, disk]) await writeFile(path, '');
  const about = (changed: Partial<CheckedMachine>): CheckedMachine => ({
    ...{ name: 'web', kind: 'attached', presence: RUNNING, sockets: paths, written: [disk], read: [] },
    ...changed,
  });
  return { directory, paths, disk, about };
}

test('a machine that runs must have its sockets', async (t) => {
  const { directory, paths, about } = await ground(t);
  assert.equal((await machineFinding(about({}))).verdict, 'ok');
  const withoutAgent = await machineFinding(about({ sockets: { qmpPath: paths.qmpPath } }));
  assert.match(`${withoutAgent.verdict}: ${withoutAgent.remedy}`, /^warning: .*qemu-guest-agent/);
  const gone = join(directory, 'gone');
  for (const [sockets, what] of [
    [{ ...paths, qmpPath: gone }, 'QMP socket'],
    [{ ...paths, agentPath: gone }, 'guest agent socket'],
  ] as const) {
    const found = await machineFinding(about({ sockets }));
    assert.deepEqual([found.verdict, found.found], ['failed', `it runs; its ${what}: ${gone} is not there`]);
    assert.match(found.remedy!, /on its command line/);
  }
  const managed = await machineFinding(about({ kind: 'managed', sockets: { qmpPath: gone } }));
  assert.match(managed.remedy!, /vm stop/);
});

test('a machine that is off, or left alone, says so', async (t) => {
  const { directory, about } = await ground(t);
  const stopped = { presence: { state: 'stopped' } } as const;
  assert.equal((await machineFinding(about(stopped))).verdict, 'ok');
  const nowhere = { qmpPath: join(directory, 'nowhere', 'qmp') };
  const lost = await machineFinding(about({ ...stopped, sockets: nowhere }));
  assert.equal(lost.verdict, 'warning');
  assert.ok(lost.found.includes(`${dirname(nowhere.qmpPath)} is not there`), lost.found);
  const stale = await machineFinding(
    about({ presence: { state: 'stale', reason: 'it runs on another file' } }),
  );
  assert.deepEqual([stale.verdict, stale.found], ['failed', 'web: it runs on another file']);
  const held = await machineFinding(
    about({ presence: { state: 'unreachable', reason: 'somebody else holds it' } }),
  );
  assert.match(`${held.found} ${held.remedy}`, /somebody else holds it .*QMP socket/);
});

test('every file of its disks must be there: what is written, and what is read', async (t) => {
  const { directory, disk, about } = await ground(t);
  const base = join(directory, 'golden.qcow2');
  assert.equal((await disksFinding(about({}))).verdict, 'ok');
  const found = await disksFinding(about({ read: [base], written: [disk, join(directory, 'nfs', 'a.raw')] }));
  assert.equal(found.found, `${join(directory, 'nfs')} is not there; ${base} is not there`);
  assert.match(`${found.verdict}: ${found.remedy}`, /^failed: .*vm move/);

  const image = (path: string) => ({ path, format: 'qcow2' as const });
  const checked = checkedMachine({
    record: {
      ...{ name: 'web', kind: 'attached', sockets: { qmpPath: '/run/web' } },
      disks: [{ diskId: 'root', chain: [image('/base'), image('/own')] }],
    } as unknown as MachineRecord,
    presence: RUNNING,
    chain: () => [image('/base'), image('/own'), image('/sealed'), image('/tip')],
  });
  assert.deepEqual([checked.written, checked.read], [['/own', '/tip'], ['/base']]);
});

test('keys are for nobody else, and neither are the directories beside them', async (t) => {
  const directory = await temporaryDirectory(t);
  const keys = join(directory, 'keys');
  await mkdir(keys, { mode: 0o700 });
  for (const name of ['identity.json', 'operator.token'])
    await writeFile(join(keys, name), '', { mode: 0o600 });
  await writeFile(join(keys, 'authority.pem'), '', { mode: 0o644 });
  await symlink(join(directory, 'nothing'), join(directory, 'dangling'));
  assert.equal((await modesIn(directory)).length, 1);
  assert.equal((await keysFinding(keys)).verdict, 'ok');
  assert.equal((await rightsFinding(directory)).verdict, 'ok');
  const token = join(keys, 'operator.token');
  await chmod(token, 0o604);
  const open = await keysFinding(keys);
  assert.deepEqual([open.verdict, open.found], ['failed', `${token} has mode 604`]);
  assert.ok(open.remedy!.includes(`chmod 600 ${token}`));
  await chmod(keys, 0o750);
  const wide = await rightsFinding(directory);
  assert.deepEqual([wide.verdict, wide.found], ['warning', `${keys} has mode 750`]);
});
