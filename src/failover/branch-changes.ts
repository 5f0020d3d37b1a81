import { join } from 'node:path';
import Type from 'typebox';
import type { MachineConfiguration } from '../hypervisor/index.ts';
import { ownOf } from '../lib/own.ts';
import { type Random, uuidOf } from '../lib/random.ts';
import { loadRecord, recordKind, storeRecord } from '../lib/records.ts';
import type { Trunk } from '../replica/index.ts';
import type { FailoverTools } from './tools.ts';

/** What a NIC is to have in the guest; IPv4. */
const AddressesSchema = Type.Object({
  /** With prefix length. */
  addresses: Type.Array(Type.String(), { minItems: 1 }),
  gateway: Type.Optional(Type.String()),
  dns: Type.Optional(Type.Array(Type.String())),
});
export type NicAddresses = Type.Static<typeof AddressesSchema>;

const ChangesSchema = Type.Object({
  /** By NIC id; the others stay as the guest has them. */
  addresses: Type.Optional(Type.Record(Type.String(), AddressesSchema)),
  /** A program of the guest that sets them, in the place of `ip`. */
  addressTool: Type.Optional(Type.String()),
  memoryBytes: Type.Optional(Type.Integer({ minimum: 1 })),
  cpus: Type.Optional(Type.Integer({ minimum: 1 })),
  uuid: Type.Optional(Type.String()),
  /** By NIC id. */
  macs: Type.Optional(Type.Record(Type.String(), Type.String())),
});
/** `branches/<branch>/changes.json`: how the machine of a branch differs from the one that the point describes. */
export type BranchChanges = Type.Static<typeof ChangesSchema>;
const BRANCH_CHANGES = recordKind('branch-changes', 1, ChangesSchema);

/** What somebody wants to be different where a machine comes up; what is not said stays as it is. */
export type WantedChanges = Pick<BranchChanges, 'addresses' | 'addressTool' | 'memoryBytes' | 'cpus'> & {
  readonly mac?: 'keep' | 'new';
  readonly uuid?: 'keep' | 'new';
};

/** Second half of an address that says that nobody has assigned it to a maker of hardware, as QEMU's own do. */
const MAC_PREFIX = '52:54:00';

/** What is wanted, for the machine of one point: new names are made up here, once. */
export function changesOf(
  { mac, uuid, addresses, ...others }: WantedChanges,
  { nics }: MachineConfiguration,
  random: Random,
): BranchChanges {
  const known = Object.entries(addresses ?? {}).filter(([nicId]) => nics.some((nic) => nic.nicId === nicId));
  return {
    ...others,
    ...(known.length > 0 ? { addresses: Object.fromEntries(known) } : {}),
    ...(uuid === 'new' ? { uuid: uuidOf(random) } : {}),
    ...(mac === 'new' ? { macs: Object.fromEntries(nics.map(({ nicId }) => [nicId, macOf(random)])) } : {}),
  };
}

function macOf(random: Random): string {
  return [MAC_PREFIX, ...[...random.bytes(3)].map((byte) => byte.toString(16).padStart(2, '0'))].join(':');
}

/** The machine of a branch as it is started; pure. */
export function changed(
  configuration: MachineConfiguration,
  { memoryBytes, cpus, uuid, macs = {} }: BranchChanges,
): MachineConfiguration {
  return {
    ...configuration,
    memoryBytes: memoryBytes ?? configuration.memoryBytes,
    cpus: cpus ?? configuration.cpus,
    uuid: uuid ?? configuration.uuid,
    nics: configuration.nics.map((nic) => ({ ...nic, mac: ownOf(macs, nic.nicId) ?? nic.mac })),
  };
}

type Files = Pick<FailoverTools, 'files'>;

/** Durable on return. */
export function storeChanges(
  { files }: Files,
  replica: Trunk,
  branchId: string,
  changes: BranchChanges,
): Promise<void> {
  return storeRecord(files, changesPath(replica, branchId), BRANCH_CHANGES, changes);
}

/** Nothing where the machine is as its point describes it. */
export async function loadChanges(
  { files }: Files,
  replica: Trunk,
  branchId: string,
): Promise<BranchChanges> {
  return (await loadRecord(files, changesPath(replica, branchId), BRANCH_CHANGES)) ?? {};
}

function changesPath(replica: Trunk, branchId: string): string {
  return join(replica.layout.branch(branchId), 'changes.json');
}
