import assert from 'node:assert/strict';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { buildLabGuest, LEDGER_AREAS } from '../../lab/build-guest.ts';
import { checkLedgerDisks } from '../../lab/ledger.ts';
import { LedgerPort } from '../../lab/ledger-port.ts';
import { type LabMachine, type LabMachineOptions, startLabMachine } from '../../lab/qemu.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { runCommand } from '../../src/lib/processes.ts';
import { systemRandom } from '../../src/lib/random.ts';
import { GuestAgent } from '../../src/qmp/index.ts';
import { type CleanUp, temporaryDirectory } from './temporary.ts';

export async function started(t: CleanUp, options: Partial<LabMachineOptions> = {}): Promise<LabMachine> {
  const directory = await temporaryDirectory(t);
  const machine = await startLabMachine({ directory, guest: await buildLabGuest(), ...options });
  t.after(() => machine.stop());
  return machine;
}

export async function agentOf(t: CleanUp, machine: LabMachine): Promise<GuestAgent> {
  await machine.agentReady();
  const agent = await GuestAgent.connect({
    path: machine.agentPath,
    clock: systemClock,
    random: systemRandom,
  });
  t.after(() => agent.close());
  return agent;
}

export async function ledgerPortOf(t: CleanUp, machine: LabMachine): Promise<LedgerPort> {
  const port = await LedgerPort.connect({ path: machine.ledgerPath, clock: systemClock });
  t.after(() => port.close());
  return port;
}

/** Runs a shell command in the guest; anything but success fails the test with what it said. */
export async function inGuest(agent: GuestAgent, script: string): Promise<string> {
  const { exitCode, stdout, stderr } = await agent.exec('/bin/sh', ['-c', script]);
  assert.equal(exitCode, 0, `${script}: ${stdout}${stderr}`);
  return stdout.trim();
}

/** The ledger on the disks of a machine that has ended. */
export async function ledgerOf(t: CleanUp, machine: LabMachine) {
  const disks = [];
  for (const { disk, partition } of LEDGER_AREAS) {
    const raw = join(machine.directory, `${disk}.raw`);
    const { path } = machine.disks.find(({ name }) => name === disk)!;
    await runCommand('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', path, raw]);
    const file = await open(raw, 'r');
    t.after(() => file.close());
    const read = async (offset: number, length: number) => {
      const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, offset);
      return buffer.subarray(0, bytesRead);
    };
    disks.push({ read, partition });
  }
  return checkLedgerDisks(disks);
}
