import { join } from 'node:path';
import Type from 'typebox';
import { loadRecord, recordKind, storeRecord } from '../lib/records.ts';
import type { Trunk } from '../replica/index.ts';
import { NicPlug } from '../replication/index.ts';
import type { NicMapping } from './network.ts';
import type { FailoverTools } from './tools.ts';

/** `branches/<branch>/networks.json`: what the NICs of a branch were last connected to, by NIC id. */
const BRANCH_NETWORKS = recordKind(
  'branch-networks',
  1,
  Type.Object({ networks: Type.Record(Type.String(), NicPlug) }),
);

type Files = Pick<FailoverTools, 'files'>;

/** Durable on return. */
export function storeNetworks(
  { files }: Files,
  replica: Trunk,
  branchId: string,
  networks: Readonly<Record<string, NicMapping>>,
): Promise<void> {
  const body = { networks: { ...networks } };
  return storeRecord(files, networksPath(replica, branchId), BRANCH_NETWORKS, body);
}

/** Nothing for a branch that was never connected, or by an earlier version. */
export async function loadNetworks(
  { files }: Files,
  replica: Trunk,
  branchId: string,
): Promise<Readonly<Record<string, NicMapping>>> {
  return (await loadRecord(files, networksPath(replica, branchId), BRANCH_NETWORKS))?.networks ?? {};
}

function networksPath(replica: Trunk, branchId: string): string {
  return join(replica.layout.branch(branchId), 'networks.json');
}
