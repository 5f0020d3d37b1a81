import type { ImageFile } from '../images.ts';

/** Options of one QEMU block node, as `blockdev-add` and `json:` file names take them. */
export interface NodeOptions {
  readonly driver: string;
  readonly file: { readonly driver: 'file'; readonly filename: string; readonly [option: string]: unknown };
  readonly backing?: NodeOptions | null;
  readonly [option: string]: unknown;
}

/**
 * The node options of a chain, every file and driver named and the oldest qcow2 file told that it has no
 * backing: QEMU then follows no header (qemu docs/system/qemu-block-drivers, «json:» and blockdev options).
 */
export function chainOptions(chain: readonly ImageFile[], tip: Record<string, unknown> = {}): NodeOptions {
  let node: NodeOptions | null = null;
  chain.forEach((image, index) => {
    const isTip = index === chain.length - 1;
    const below = node;
    node = {
      driver: image.format,
      ...(image.format === 'qcow2' ? { backing: below } : {}),
      'read-only': !isTip || tip['read-only'] === true,
      ...(isTip ? tip : {}),
      file: { driver: 'file', filename: image.path },
    };
  });
  if (node === null) throw new RangeError('a chain has at least one file');
  return node;
}

/** A chain as one file name argument of qemu-img and qemu-nbd. */
export function chainFileName(chain: readonly ImageFile[], tip: Record<string, unknown> = {}): string {
  return `json:${JSON.stringify(chainOptions(chain, tip))}`;
}
