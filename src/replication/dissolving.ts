import type { RunningMachine } from '../hypervisor/index.ts';
import type { Deliveries } from './deliveries.ts';
import { ofOneAge } from './disk-changes.ts';
import type { ProtectedLayout } from './layout.ts';
import type { ProtectedChain } from './protected-chain.ts';
import type { MachineRecord } from './records.ts';

/**
 * Ends a protection from wherever an earlier attempt was interrupted: layers are committed into the owner's files or set aside,
 * and what was kept for the targets is removed. Returns the record of the machine afterwards, which is the caller's to store;
 * `store` makes durable how far it has come.
 */
export async function dissolved(
  o: {
    readonly chain: ProtectedChain;
    readonly deliveries: Deliveries;
    readonly layout: ProtectedLayout;
    readonly running: RunningMachine | undefined;
  },
  machine: MachineRecord,
  store: (record: MachineRecord) => Promise<void>,
): Promise<MachineRecord> {
  const { dissolving: phase, suspect: _over, gone: _gone, ...record } = machine;
  if (phase === 'committing') {
    await o.chain.commitIntoOrigins(o.running);
    await store({ ...machine, dissolving: 'removing' });
  }
  const last = o.chain.cuts.at(-1);
  const isKept = phase === 'setting-aside' && last !== undefined;
  await o.chain.remove(isKept ? o.layout.setAside(last.cutId) : undefined);
  await o.deliveries.remove();
  return { ...record, ...ofOneAge(record), protection: null };
}
