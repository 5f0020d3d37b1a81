import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { DiskImages, ImageFile } from '../../src/hypervisor/index.ts';
import type { FileSystem } from '../../src/lib/files.ts';
import { createEmptyLayer, type LayerOperation, LayerWriter } from '../../src/qcow2/index.ts';
import { allBytes } from '../support/image-bytes.ts';
import { contentOf } from '../support/layer-operations.ts';
import type { CleanUp } from '../support/temporary.ts';

/** Disk images under test, the files that they work on, and an empty directory there. */
export interface ImagesUnderTest {
  readonly images: DiskImages;
  readonly files: FileSystem;
  readonly root: string;
}

const SIZE = 540_672;
const CLUSTER = 131_072;

/** What every `DiskImages` must do. Chains are made by our own layer writer. */
export function diskImagesContract(name: string, make: (t: CleanUp) => Promise<ImagesUnderTest>): void {
  describe(`${name} keeps the contract of DiskImages`, () => {
    test('a chain reads as its layers lie upon each other, the youngest first', async (t) => {
      const it = await make(t);
      const chain = await threeLayers(it);
      await using reader = await it.images.open(chain);
      assert.equal(reader.sizeBytes, SIZE);
      assert.ok((await allBytes(reader)).equals(expected(3)));
      await using below = await it.images.open(chain.slice(0, 2));
      assert.ok((await allBytes(below)).equals(expected(2)));
    });

    test('files are taken as named, whatever the headers say', async (t) => {
      const it = await make(t);
      const [base, , top] = await threeLayers(it);
      await using reader = await it.images.open([base!, top!]);
      const bytes = await allBytes(reader);
      // The middle layer's data at 128 KiB is not seen.
      assert.ok(bytes.subarray(CLUSTER, CLUSTER + 4096).equals(contentOf(1, CLUSTER, 4096)));
    });

    test('own extents are those of the youngest layers, divided into data and zeros', async (t) => {
      const it = await make(t);
      const chain = await threeLayers(it);
      await using reader = await it.images.open(chain);
      assert.deepEqual(await reader.ownExtents(1), {
        data: [{ offset: 8192, length: 4096 }],
        zero: [{ offset: CLUSTER + 4096, length: 4096 }],
      });
      assert.deepEqual(await reader.ownExtents(2), {
        data: [
          { offset: 8192, length: 4096 },
          { offset: CLUSTER, length: 4096 },
          { offset: CLUSTER + 8192, length: 8192 },
        ],
        zero: [
          { offset: 0, length: 8192 },
          { offset: CLUSTER + 4096, length: 4096 },
        ],
      });
    });

    test('content extents leave out what no layer holds and what is zero', async (t) => {
      const it = await make(t);
      const chain = await threeLayers(it);
      await using reader = await it.images.open(chain);
      const { data, zero } = await reader.contentExtents();
      const bytes = expected(3);
      for (const { offset, length } of zero)
        assert.ok(bytes.subarray(offset, offset + length).every((b) => b === 0));
      const covered = [...data, ...zero].reduce((sum, { length }) => sum + length, 0);
      assert.equal(covered, SIZE);
      assert.ok(zero.some(({ offset, length }) => offset <= SIZE - 4096 && offset + length === SIZE));
    });

    test('a commit moves all that the top holds into the base, and may be repeated', async (t) => {
      const it = await make(t);
      const [base, middle, top] = await threeLayers(it);
      for (let i = 0; i < 2; i++) {
        await it.images.commit([base!, middle!]);
        await using through = await it.images.open([base!, middle!, top!]);
        assert.ok((await allBytes(through)).equals(expected(3)));
      }
      await using alone = await it.images.open([base!]);
      assert.ok((await allBytes(alone)).equals(expected(2)));
    });

    test('a commit into an empty layer makes its tables', async (t) => {
      const it = await make(t);
      const [, middle] = await threeLayers(it);
      const base: ImageFile = { path: join(it.root, 'empty.qcow2'), format: 'qcow2' };
      await createEmptyLayer(it.files, base.path, { sizeBytes: SIZE, backing: null }, { sync: true });
      await it.images.commit([base, middle!]);
      await using alone = await it.images.open([base]);
      const bytes = await allBytes(alone);
      assert.ok(bytes.subarray(CLUSTER, CLUSTER + 4096).equals(contentOf(2, CLUSTER, 4096)));
    });

    test('a raw file can be the base', async (t) => {
      const it = await make(t);
      const [, middle] = await threeLayers(it);
      const raw: ImageFile = { path: join(it.root, 'base.raw'), format: 'raw' };
      const file = await it.files.open(raw.path, 'create');
      await file.write(expected(1), 0);
      await file.close();
      {
        await using through = await it.images.open([raw, middle!]);
        assert.ok((await allBytes(through)).equals(expected(2)));
      }
      await it.images.commit([raw, middle!]);
      await using alone = await it.images.open([raw]);
      assert.ok((await allBytes(alone)).equals(expected(2)));
    });

    test('reparent changes the name in the header and nothing else', async (t) => {
      const it = await make(t);
      const [base, middle, top] = await threeLayers(it);
      await it.images.commit([base!, middle!]);
      for (let i = 0; i < 2; i++) await it.images.reparent(top!, base!);
      await using reader = await it.images.open([base!, top!]);
      assert.ok((await allBytes(reader)).equals(expected(3)));
    });

    test('S0.14 a commit into a layer in the middle hides nothing of what lies below it', async (t) => {
      const it = await make(t);
      const [base, middle, top] = await threeLayers(it);
      await it.images.commit([base!, middle!, top!]);
      {
        await using joined = await it.images.open([base!, middle!]);
        assert.ok((await allBytes(joined)).equals(expected(3)));
      }
      await it.images.commit([base!, middle!]);
      await using alone = await it.images.open([base!]);
      assert.ok((await allBytes(alone)).equals(expected(3)));
    });

    test('S0.2 a tip grows for itself; a commit takes its size down', async (t) => {
      const it = await make(t);
      const [base, middle, top] = await threeLayers(it);
      const grown = Buffer.concat([expected(3), Buffer.alloc(CLUSTER)]);
      for (let i = 0; i < 2; i++) await it.images.grow(top!, grown.length);
      // Somebody else may have grown it further than we know.
      await it.images.grow(top!, SIZE);
      {
        await using below = await it.images.open([base!, middle!]);
        assert.equal(below.sizeBytes, SIZE);
        await using through = await it.images.open([base!, middle!, top!]);
        assert.ok((await allBytes(through)).equals(grown));
      }
      await it.images.commit([base!, middle!, top!]);
      await it.images.commit([base!, middle!]);
      await using alone = await it.images.open([base!]);
      assert.ok((await allBytes(alone)).equals(grown));
    });

    test('a file that is missing or no image is refused with a code', async (t) => {
      const it = await make(t);
      const path = join(it.root, 'nothing');
      await assert.rejects(it.images.open([{ path, format: 'qcow2' }]), { code: 'IMAGE_UNREADABLE' });
      const file = await it.files.open(path, 'create');
      await file.write(Buffer.alloc(200_000, 1), 0);
      await file.close();
      await assert.rejects(it.images.open([{ path, format: 'qcow2' }]), { code: 'IMAGE_UNREADABLE' });
    });
  });
}

const OPERATIONS: readonly (readonly LayerOperation[])[] = [
  [{ kind: 'data', offset: 0, length: 2 * CLUSTER }],
  [
    { kind: 'zero', offset: 0, length: 8192 },
    { kind: 'data', offset: CLUSTER, length: 16_384 },
  ],
  [
    { kind: 'data', offset: 8192, length: 4096 },
    { kind: 'zero', offset: CLUSTER + 4096, length: 4096 },
  ],
];

async function threeLayers({ files, root }: ImagesUnderTest): Promise<ImageFile[]> {
  const chain: ImageFile[] = [];
  for (const [index, operations] of OPERATIONS.entries()) {
    const path = join(root, `${index}.qcow2`);
    const backing = index === 0 ? null : { name: `${index - 1}.qcow2`, format: 'qcow2' as const };
    await using writer = await LayerWriter.create(files, path, { sizeBytes: SIZE, backing });
    for (const { kind, offset, length } of operations) {
      if (kind === 'data') await writer.write(offset, contentOf(index + 1, offset, length));
      else await writer.zero(offset, length);
    }
    await writer.finish();
    chain.push({ path, format: 'qcow2' });
  }
  return chain;
}

function expected(layers: number): Buffer {
  const bytes = Buffer.alloc(SIZE);
  for (const [index, operations] of OPERATIONS.slice(0, layers).entries()) {
    for (const { kind, offset, length } of operations) {
      if (kind === 'data') contentOf(index + 1, offset, length).copy(bytes, offset);
      else bytes.fill(0, offset, offset + length);
    }
  }
  return bytes;
}
