import assert from 'node:assert/strict';
import type { ImageFile } from '../../src/hypervisor/index.ts';
import { fileNodesOf, nodeNameOf } from '../../src/hypervisor/qemu/block-graph.ts';
import { runCommand } from '../../src/lib/processes.ts';
import type { Replica } from '../../src/replica/index.ts';
import type { ProtectedMachine } from '../../src/replication/index.ts';

/** The files of a chain by its headers, which is what an operator's tools follow; the oldest first. */
export async function backingChain(tip: string): Promise<string[]> {
  const { stdout } = await runCommand('qemu-img', [
    ...['info', '-U', '-f', 'qcow2', '--backing-chain', '--output=json', tip],
  ]);
  return (JSON.parse(stdout) as { filename: string }[]).map(({ filename }) => filename).reverse();
}

/** By `query-named-block-nodes`: the last file of a chain may be written to, and none below it. */
export function assertTipAloneIsWritable(nodes: unknown, chain: readonly ImageFile[]): void {
  const known = nodes as readonly { readonly 'node-name': string; readonly ro: boolean }[];
  const isWritable = (image: ImageFile) => {
    const names = [nodeNameOf(nodes, image), ...fileNodesOf(nodes, image.path)];
    assert.equal(names.length, 2, `${image.path} is open once`);
    return names.map((name) => !known.find((node) => node['node-name'] === name)!.ro);
  };
  const expected = chain.map((_, index) => Array(2).fill(index === chain.length - 1));
  assert.deepEqual(chain.map(isWritable), expected);
}

/**
 * Fails unless the states that both sides hold as files lie upon each other at the one as at the other, for every disk and by
 * the headers of the layers. Returns how many they are.
 */
export async function assertSameOrder(machine: ProtectedMachine, replica: Replica): Promise<number> {
  const counts = new Set<number>();
  for (const { diskId, chain } of machine.record.disks) {
    const here = new Map<string, string>();
    // What was merged is the state of the owner's file, until a later one is.
    for (const { cutId, sealed, merged } of machine.cuts)
      here.set(merged ? chain.at(-1)!.path : sealed[diskId]!.path, cutId);
    const points = replica.points.map(({ statement }) => statement.pointId);
    const there = new Map(points.map((id) => [replica.chain(id, diskId).at(-1)!.path, id]));
    const mine = statesOf(await backingChain(machine.chain(diskId).at(-1)!.path), here);
    const theirs = statesOf(await backingChain(replica.chain(points.at(-1)!, diskId).at(-1)!.path), there);
    assert.deepEqual(theirs, points, `${diskId}: every point lies upon the one before it`);
    const common = mine.filter((id) => theirs.includes(id));
    assert.deepEqual(
      theirs.filter((id) => mine.includes(id)),
      common,
      diskId,
    );
    counts.add(common.length);
  }
  assert.equal(counts.size, 1, 'all disks have the same states');
  return [...counts][0]!;
}

function statesOf(paths: readonly string[], names: ReadonlyMap<string, string>): string[] {
  return paths.flatMap((path) => names.get(path) ?? []);
}
