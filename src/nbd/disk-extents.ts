import { throwIfAborted } from '../lib/clock.ts';
import { type Extent, type Extents, extentsOf } from '../lib/extents.ts';
import type { NbdClient } from './client.ts';

/** Depth 1 is the exported layer itself, 2 its backing file, …; 0 is allocated nowhere (QEMU, docs/interop/nbd.rst). */
export const ALLOCATION_DEPTH = 'qemu:allocation-depth';
/** Holes and zeroes of the whole chain (NBD doc/proto.md, «base:allocation metadata context»). */
export const BASE_ALLOCATION = 'base:allocation';
/** The context of a QEMU dirty bitmap; a set bit 0 means dirty. */
export const dirtyBitmapContext = (bitmap: string): string => `qemu:dirty-bitmap:${bitmap}`;

/** Bit 1 of `base:allocation`: reads as zeroes. Bit 0, «hole», says nothing about content. */
const STATE_ZERO = 2;
/** Bit 0 of `qemu:dirty-bitmap:…`. */
const STATE_DIRTY = 1;

/** How much of the disk is asked about between two looks at the signal. */
const WALK_BYTES = 8 * 1024 * 1024 * 1024;

/** What must be read and what is known to be zero; the two never overlap. */
export interface ContentExtents {
  readonly data: Extents;
  readonly zero: Extents;
}

/**
 * The bytes that the topmost `maximumDepth` layers of an exported chain hold (1: the exported layer alone),
 * divided into data and zeroes. What no layer or only a deeper one holds is in neither: it is as it was.
 *
 * Only the ZERO bit of `base:allocation` makes bytes zero; a hole without it is data, because its content is
 * unknown. Throws NBD_CONTEXT_MISSING unless the client was connected with both contexts and the server granted
 * them; CANCELLED; and what a request throws.
 */
export async function depthExtents(
  client: NbdClient,
  o: { readonly maximumDepth: number; readonly signal?: AbortSignal },
): Promise<ContentExtents> {
  const data: Extent[] = [];
  const zero: Extent[] = [];
  for await (const [depths, allocation] of walk(client, [ALLOCATION_DEPTH, BASE_ALLOCATION], o.signal)) {
    let i = 0;
    for (const depth of depths!) {
      const own = depth.flags >= 1 && depth.flags <= o.maximumDepth;
      const end = depth.offset + depth.length;
      for (; i < allocation!.length; i++) {
        const state = allocation![i]!;
        const from = Math.max(depth.offset, state.offset);
        const to = Math.min(end, state.offset + state.length);
        if (own && from < to) {
          ((state.flags & STATE_ZERO) !== 0 ? zero : data).push({ offset: from, length: to - from });
        }
        // This state may reach into the next depth: look at it again there.
        if (state.offset + state.length > end) break;
      }
    }
  }
  return { data: extentsOf(data), zero: extentsOf(zero) };
}

/** The whole disk through its chain, divided into data and zeroes; needs `base:allocation`. */
export async function contentExtents(
  client: NbdClient,
  o: { readonly signal?: AbortSignal } = {},
): Promise<ContentExtents> {
  const data: Extent[] = [];
  const zero: Extent[] = [];
  for await (const [allocation] of walk(client, [BASE_ALLOCATION], o.signal)) {
    for (const state of allocation!) ((state.flags & STATE_ZERO) !== 0 ? zero : data).push(state);
  }
  return { data: extentsOf(data), zero: extentsOf(zero) };
}

/** The bytes that a dirty bitmap marks; needs the context `dirtyBitmapContext(bitmap)`. */
export async function dirtyExtents(
  client: NbdClient,
  o: { readonly bitmap: string; readonly signal?: AbortSignal },
): Promise<Extents> {
  const dirty: Extent[] = [];
  for await (const [states] of walk(client, [dirtyBitmapContext(o.bitmap)], o.signal)) {
    dirty.push(...states!.filter((state) => (state.flags & STATE_DIRTY) !== 0));
  }
  return extentsOf(dirty);
}

async function* walk(client: NbdClient, contexts: readonly string[], signal: AbortSignal | undefined) {
  const { sizeBytes, minimumBlockBytes } = client.info;
  // A size that is no multiple of the block size cannot be asked about to its end: let the client refuse it.
  const step = WALK_BYTES - (WALK_BYTES % minimumBlockBytes);
  for (let offset = 0; offset < sizeBytes; offset += step) {
    throwIfAborted(signal);
    yield await client.blockStatuses(contexts, offset, Math.min(step, sizeBytes - offset));
  }
}
