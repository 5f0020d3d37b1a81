import type { DeltaHeader } from '../../src/delta/index.ts';
import type { DiskImages, ImageFile, ImageReader } from '../../src/hypervisor/index.ts';
import type { FileHandle, FileSystem } from '../../src/lib/files.ts';
import { type SignedStatement, statementDigest } from '../../src/recovery-point/index.ts';
import type { Replica } from '../../src/replica/index.ts';
import type { ReplicationTarget } from '../../src/replication/index.ts';
import { filesWith, withHandles, withoutSync } from './changed-files.ts';
import type { Wrappers } from './protected-site.ts';
import type { Swarm } from './swarm.ts';

/** A bug that the product does not have, put in from outside, to see that the simulation would find it. */
export interface PlantedBug {
  readonly name: string;
  readonly wrap: Wrappers;
  /** What is said of it. Another violation than the bug's own would be the fault of somebody else, the oracle's perhaps. */
  readonly expects: RegExp;
  /** Tried first: rare bugs are found by few seeds, and each of the others costs seconds. Default 1. */
  readonly firstSeed?: number;
  /** What a life has to be about to find it. */
  readonly swarm?: Partial<Swarm>;
}

function targetWith(target: ReplicationTarget, changed: Partial<ReplicationTarget>): ReplicationTarget {
  return {
    siteId: target.siteId,
    seeds: target.seeds,
    describe: (machineId) => target.describe(machineId),
    offer: (header, details) => target.offer(header, details),
    upload: (machineId, session, stream) => target.upload(machineId, session, stream),
    ...changed,
  };
}

function imagesWith(images: DiskImages, changed: Partial<DiskImages>): DiskImages {
  return {
    open: (chain, options) => images.open(chain, options),
    commit: (chain) => images.commit(chain),
    reparent: (image, backing) => images.reparent(image, backing),
    grow: (image, sizeBytes) => images.grow(image, sizeBytes),
    ...changed,
  };
}

export const PLANTED_BUGS: readonly PlantedBug[] = [
  {
    name: 'that a machine was ceded is forgotten with the process',
    wrap: { files: (files) => withHandles(files, withoutTenure) },
    expects: /the machine runs, and another site may take it/,
    swarm: { cessions: 0.5 },
    firstSeed: 61,
  },
  {
    name: 'an acknowledgement is given when the stream has been sent, and not when it has been published',
    expects: /target-behind|is gone/,
    wrap: { target: (target) => acknowledging(target, 'early') },
  },
  {
    name: 'an upload that failed is taken for acknowledged',
    expects: /target-behind|is gone/,
    firstSeed: 4,
    wrap: { target: (target) => acknowledging(target, 'whatever comes') },
  },
  {
    name: 'the parent of a delta is not looked at, and an offer from before the last one comes once more',
    expects: /was accepted on top of/,
    wrap: { target: offeringAgain, replica: blindToParents },
  },
  {
    name: 'directories are never synced',
    expects: /is missing|cannot be read|does not open|is gone/,
    wrap: { files: (files) => filesWith(files, { syncDirectory: async () => undefined }) },
  },
  {
    name: 'the directory of the points is not synced',
    expects: /is gone|does not open|target-behind/,
    firstSeed: 3,
    wrap: { files: (files) => withoutDirectorySync(files, '/points') },
  },
  {
    name: 'layers on their way in are not synced',
    expects: /does not open|cannot be read|not what was signed/,
    firstSeed: 2,
    wrap: { files: (files) => withoutSync(files, (path) => path.endsWith('.layer')) },
  },
  {
    name: 'a manifest is renamed before it is synced',
    expects: /not a valid point record/,
    firstSeed: 3,
    wrap: { files: (files) => withoutSync(files, (path) => path.includes('/points/')) },
  },
  {
    name: 'records of cuts are renamed before they are synced',
    expects: /not a valid cut record/,
    wrap: { files: (files) => withoutSync(files, (path) => path.includes('/cuts/')) },
  },
  {
    name: 'the record of a machine is renamed before it is synced, and forgets the disk that it has got',
    expects: /not a valid machine record|late/,
    wrap: { files: (files) => withoutSync(files, (path) => path.includes('/machine.json')) },
  },
  {
    name: 'the record of how far a target is, is renamed before it is synced',
    expects: /not a valid target record/,
    wrap: { files: (files) => withoutSync(files, (path) => path.includes('/targets/')) },
  },
  {
    name: 'tips are given to the machine before they are durable',
    expects: /no qcow2 header|cannot be read|cannot open/,
    wrap: { files: (files) => withoutSync(files, (path) => /\/protected\/.*\.qcow2/.test(path)) },
  },
  {
    name: 'a sync that failed is tried again and believed',
    expects: /not a valid|has changed|does not open|no qcow2 header|lacks|is gone/,
    firstSeed: 46,
    wrap: { files: (files) => withHandles(files, retryingSync) },
  },
  {
    name: 'a write that failed is not noticed',
    expects: /not a valid|has changed|does not open|not what was signed|is gone/,
    firstSeed: 109,
    wrap: { files: (files) => withHandles(files, deafToWrites) },
  },
  {
    name: 'the name of the backing file is not rewritten after a commit',
    expects: /is missing|by its headers/,
    wrap: { images: (images) => imagesWith(images, { reparent: async () => undefined }) },
  },
  {
    name: 'a commit is reported and not done',
    expects: /has changed|lacks|by its headers/,
    wrap: { images: (images) => imagesWith(images, { commit: async () => undefined }) },
  },
  {
    name: 'a commit is not shown what lies below the two files',
    expects: /has changed|lacks/,
    firstSeed: 65,
    wrap: { images: (images) => imagesWith(images, { commit: (chain) => images.commit(chain.slice(-2)) }) },
  },
  {
    name: 'a commit goes into the wrong file',
    expects: /has changed|lacks/,
    wrap: {
      images: (images) => imagesWith(images, { commit: (chain) => images.commit([...chain].reverse()) }),
    },
  },
  {
    name: 'the zeros of a layer are forgotten',
    expects: /not what was signed|has changed/,
    wrap: { images: (images) => imagesWith(images, { open: (chain) => withoutZeros(images, chain) }) },
  },
  {
    name: 'the layer below a cut is left out when the cut is read',
    expects: /not what was signed|has changed/,
    firstSeed: 5,
    wrap: { images: (images) => imagesWith(images, { open: (chain) => images.open(shortened(chain)) }) },
  },
  {
    name: "the layers are committed though the guest runs on the owner's file",
    expects: /owner's .* lacks|has changed|owner's file after a power cut: .* neither/,
    firstSeed: 25,
    wrap: { files: (files) => filesWith(files, { rename: (from, to) => unlessGivenBack(files, from, to) }) },
  },
  {
    name: 'the leaves of a merged layer stay those from before',
    expects: /leaves|not what was signed|gave other bytes/,
    firstSeed: 7,
    wrap: { files: (files, disk) => staleLeaves(files, (path) => disk.file(path) !== undefined) },
  },
];

/** Answers in the name of the other site: before it has, or also when it never does. */
function acknowledging(target: ReplicationTarget, when: 'early' | 'whatever comes'): ReplicationTarget {
  let offered: DeltaHeader | undefined;
  return targetWith(target, {
    offer: (header, details) => {
      offered = header;
      return target.offer(header, details);
    },
    upload: async (machineId, session, stream) => {
      const chunks: Buffer[] = [];
      for await (const chunk of stream)
        chunks.push(Buffer.concat(chunk instanceof Uint8Array ? [chunk] : [...chunk]));
      const real = target.upload(
        machineId,
        session,
        (async function* () {
          yield* chunks;
        })(),
      );
      // The bug that is planted: whether it fails is not heard.
      const settled = real.then(
        () => undefined,
        () => undefined,
      );
      if (when === 'whatever comes') await settled;
      const { pointId, sequence } = offered!;
      const digest = digestOfTrailer(Buffer.concat(chunks));
      return { level: 'verified', pointId, sequence, statementDigest: digest, publishedAtMs: 0 };
    },
  });
}

/** What was on the wire before the last point was offered arrives once more before the next one is. */
function offeringAgain(target: ReplicationTarget): ReplicationTarget {
  const offers: Parameters<ReplicationTarget['offer']>[] = [];
  return targetWith(target, {
    offer: async (header, details) => {
      if (offers.at(-1)?.[0].pointId !== header.pointId) {
        if (offers.length === 2) await target.offer(...offers.shift()!);
        offers.push([header, details]);
      }
      return target.offer(header, details);
    },
  });
}

/** Whatever a delta is to lie on is taken for the newest point. */
function blindToParents(replica: Replica): void {
  const offer = replica.offer.bind(replica);
  const describe = replica.describe.bind(replica);
  replica.offer = (offered) => {
    const { pointId, parent, sequence } = offered.header;
    replica.describe = () => {
      const { newest, ...description } = describe();
      const isOther = newest !== null && parent !== null && newest.pointId !== pointId;
      return { ...description, newest: isOther ? { ...newest, ...parent, sequence: sequence - 1 } : newest };
    };
    return offer(offered).finally(() => {
      replica.describe = describe;
    });
  };
}

/** The digest of the statement that ends a delta stream, as the other site would compute it. */
function digestOfTrailer(stream: Buffer): string {
  // The trailer is the last frame, its payload canonical JSON with sorted members up to the end of the stream.
  const text = stream.toString('latin1');
  const json = stream.subarray(text.lastIndexOf('{"dataBytes":')).toString();
  const { statement } = JSON.parse(json) as { statement: SignedStatement };
  return statementDigest(statement.statement);
}

function withoutDirectorySync(files: FileSystem, end: string): FileSystem {
  return filesWith(files, {
    syncDirectory: async (path) => {
      if (!path.endsWith(end)) await files.syncDirectory(path);
    },
  });
}

function retryingSync(handle: FileHandle): FileHandle {
  return { ...handle, sync: () => handle.sync().catch(() => handle.sync()) };
}

function deafToWrites(handle: FileHandle): FileHandle {
  // The bug that is planted: nobody hears of the failure.
  const write = (data: Uint8Array, position: number) => handle.write(data, position).catch(() => undefined);
  return {
    ...handle,
    write,
    writeAll: (buffers, position) => write(Buffer.concat(buffers), position),
    writeDirect: (data, position) => handle.writeDirect(data, position).catch(() => 'direct' as const),
  };
}

async function withoutZeros(images: DiskImages, chain: readonly ImageFile[]): Promise<ImageReader> {
  const reader = await images.open(chain);
  return {
    sizeBytes: reader.sizeBytes,
    readInto: (target, offset) => reader.readInto(target, offset),
    contentExtents: () => reader.contentExtents(),
    ownExtents: async (layers) => ({ data: (await reader.ownExtents(layers)).data, zero: [] }),
    close: () => reader.close(),
    [Symbol.asyncDispose]: () => reader.close(),
  };
}

function shortened(chain: readonly ImageFile[]): ImageFile[] {
  return chain.filter((_image, index) => chain.length < 3 || index !== chain.length - 2);
}

/** A process that starts again knows nothing of what was ceded. */
function withoutTenure(handle: FileHandle, path: string): FileHandle {
  if (!path.includes('machine.json')) return handle;
  const forgetful = (data: Uint8Array): Uint8Array => {
    const { tenure: _forgotten, ...record } = JSON.parse(Buffer.from(data).toString()) as {
      tenure?: unknown;
    };
    return Buffer.from(JSON.stringify(record));
  };
  return { ...handle, write: (data, position) => handle.write(forgetful(data), position) };
}

/** Nobody will know that the guest has left a tip. */
async function unlessGivenBack(files: FileSystem, from: string, to: string): Promise<void> {
  if (!to.endsWith('.given-back')) await files.rename(from, to);
}

/** A rename over a leaves file that exists is left out. */
function staleLeaves(files: FileSystem, exists: (path: string) => boolean): FileSystem {
  return filesWith(files, {
    rename: async (from, to) => {
      if (to.endsWith('.leaves') && exists(to)) await files.remove(from);
      else await files.rename(from, to);
    },
  });
}
