import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { alignedBuffer } from '../../src/lib/aligned-buffer.ts';
import { Failure } from '../../src/lib/errors.ts';
import { type FileSystem, removeUnwaited } from '../../src/lib/files.ts';
import type { CleanUp } from '../support/temporary.ts';

/** A file system under test, and an empty directory of it. */
export interface FileSystemUnderTest {
  readonly files: FileSystem;
  readonly root: string;
}

/** What every `FileSystem` must do while nothing fails. Durability is the simulation's business. */
export function fileSystemContract(name: string, make: (t: CleanUp) => Promise<FileSystemUnderTest>): void {
  describe(`${name} keeps the contract of FileSystem`, () => {
    test('a file that is created holds what is written, with holes that read as zero', async (t) => {
      const { files, root } = await make(t);
      const path = join(root, 'file');
      const handle = await files.open(path, 'create');
      await handle.write(Buffer.from('abc'), 5000);
      await handle.writeAll([Buffer.from('de'), Buffer.from('f')], 2);
      assert.equal(await handle.sizeBytes(), 5003);
      const bytes = Buffer.alloc(6000, 1);
      assert.equal(await handle.read(bytes, 0), 5003);
      const expected = Buffer.alloc(5003);
      expected.write('def', 2);
      expected.write('abc', 5000);
      assert.deepEqual(bytes.subarray(0, 5003), expected);
      assert.equal(await handle.read(bytes, 5003), 0);
      await handle.sync();
      await handle.close();
      await files.syncDirectory(root);
      assert.equal(await files.sizeOf(path), 5003);
    });

    test('truncation cuts off and extends with zeros', async (t) => {
      const { files, root } = await make(t);
      const handle = await files.open(join(root, 'file'), 'create');
      await handle.write(Buffer.alloc(9000, 7), 0);
      await handle.truncate(4100);
      await handle.truncate(9000);
      const bytes = Buffer.alloc(9000, 1);
      assert.equal(await handle.read(bytes, 0), 9000);
      assert.deepEqual(bytes, Buffer.concat([Buffer.alloc(4100, 7), Buffer.alloc(4900)]));
      await handle.close();
    });

    test('what is written past the cache is read like everything else, and does no harm beside it', async (t) => {
      const { files, root } = await make(t);
      const handle = await files.open(join(root, 'file'), 'create');
      const pages = alignedBuffer(8 * 4096).fill(7);
      await Promise.all([
        handle.write(Buffer.alloc(4096, 5), 0),
        handle.writeDirect(pages.subarray(0, 12_288), 8192),
        handle.writeDirect(pages.subarray(12_288), 20_480),
      ]);
      await handle.write(Buffer.from('over'), 8192);
      await handle.sync();
      const bytes = Buffer.alloc(50_000, 1);
      assert.equal(await handle.read(bytes, 0), 40_960);
      const expected = Buffer.concat([Buffer.alloc(4096, 5), Buffer.alloc(4096), Buffer.alloc(32_768, 7)]);
      expected.write('over', 8192);
      assert.deepEqual(bytes.subarray(0, 40_960), expected);
      await handle.close();
    });

    test('no handle for reading writes past the cache either', async (t) => {
      const { files, root } = await make(t);
      const path = join(root, 'file');
      await put(files, path, 'content');
      const reader = await files.open(path, 'read');
      await rejectsWith('FILE_UNWRITABLE', reader.writeDirect(alignedBuffer(4096), 0));
      await reader.close();
      assert.equal(await get(files, path), 'content');
    });

    test('open refuses what is there for create, and what is missing otherwise', async (t) => {
      const { files, root } = await make(t);
      const path = join(root, 'file');
      await rejectsWith('FILE_UNREADABLE', files.open(path, 'read'));
      await rejectsWith('FILE_UNWRITABLE', files.open(path, 'update'));
      await (await files.open(path, 'create')).close();
      await rejectsWith('FILE_UNWRITABLE', files.open(path, 'create'));
      await rejectsWith('FILE_UNWRITABLE', files.open(join(root, 'missing', 'file'), 'create'));
    });

    test('a handle for reading writes nothing; update keeps what is there', async (t) => {
      const { files, root } = await make(t);
      const path = join(root, 'file');
      await put(files, path, 'content');
      const reader = await files.open(path, 'read');
      await rejectsWith('FILE_UNWRITABLE', reader.write(Buffer.from('x'), 0));
      await reader.close();
      const writer = await files.open(path, 'update');
      await writer.write(Buffer.from('C'), 0);
      await writer.close();
      assert.equal(await get(files, path), 'Content');
    });

    test('rename replaces; who has the old file open keeps it', async (t) => {
      const { files, root } = await make(t);
      await put(files, join(root, 'old'), 'old');
      await put(files, join(root, 'new'), 'new');
      const reader = await files.open(join(root, 'old'), 'read');
      await files.rename(join(root, 'new'), join(root, 'old'));
      const bytes = Buffer.alloc(3);
      await reader.read(bytes, 0);
      await reader.close();
      assert.equal(bytes.toString(), 'old');
      assert.equal(await get(files, join(root, 'old')), 'new');
      assert.equal(await files.sizeOf(join(root, 'new')), undefined);
      await rejectsWith('FILE_UNWRITABLE', files.rename(join(root, 'new'), join(root, 'old')));
    });

    test('removing may be repeated, with and without a handle open', async (t) => {
      const { files, root } = await make(t);
      const path = join(root, 'file');
      await put(files, path, 'content');
      const reader = await files.open(path, 'read');
      await files.remove(path);
      await files.remove(path);
      assert.equal(await files.sizeOf(path), undefined);
      const bytes = Buffer.alloc(7);
      assert.equal(await reader.read(bytes, 0), 7);
      await reader.close();
    });

    test('a removal whose space is not waited for takes the names at once, and nothing from who reads', async (t) => {
      const { files, root } = await make(t);
      const [one, two, missing] = ['one', 'two', 'missing'].map((name) => join(root, name));
      await put(files, one!, 'read by somebody');
      await put(files, two!, 'alone');
      const reader = await files.open(one!, 'read');
      const { freed } = await removeUnwaited(files, [one!, missing!, two!]);
      assert.deepEqual(await files.list(root), []);
      await freed;
      const bytes = Buffer.alloc(16);
      assert.equal(await reader.read(bytes, 0), 16);
      assert.equal(bytes.toString(), 'read by somebody');
      await reader.close();
    });

    test('directories: made with parents, listed sorted, removed whole, each may be repeated', async (t) => {
      const { files, root } = await make(t);
      const path = join(root, 'a', 'b');
      assert.equal(await files.list(path), undefined);
      await files.makeDirectory(path);
      await files.makeDirectory(path);
      for (const name of ['z', 'a', 'm']) await put(files, join(path, name), name);
      await files.makeDirectory(join(path, 'c'));
      assert.deepEqual(await files.list(path), ['a', 'c', 'm', 'z']);
      assert.deepEqual(await files.list(join(root, 'a')), ['b']);
      await files.removeDirectory(join(root, 'a'));
      await files.removeDirectory(join(root, 'a'));
      assert.deepEqual(await files.list(root), []);
      assert.equal(await files.sizeOf(join(path, 'a')), undefined);
    });

    test('a listing of what is no directory is an error and not empty; so is its sync', async (t) => {
      const { files, root } = await make(t);
      await put(files, join(root, 'file'), 'content');
      await rejectsWith('FILE_UNREADABLE', files.list(join(root, 'file')));
      await rejectsWith('FSYNC_FAILED', files.syncDirectory(join(root, 'missing')));
    });

    test('write permission can be taken and given back', async (t) => {
      const { files, root } = await make(t);
      const path = join(root, 'file');
      await put(files, path, 'content');
      await files.setReadOnly(path, true);
      assert.equal(await get(files, path), 'content');
      await files.setReadOnly(path, false);
      await (await files.open(path, 'update')).close();
    });
  });
}

async function put(files: FileSystem, path: string, text: string): Promise<void> {
  const handle = await files.open(path, 'create');
  await handle.write(Buffer.from(text), 0);
  await handle.close();
}

async function get(files: FileSystem, path: string): Promise<string> {
  const handle = await files.open(path, 'read');
  const bytes = Buffer.alloc(await handle.sizeBytes());
  await handle.read(bytes, 0);
  await handle.close();
  return bytes.toString();
}

async function rejectsWith(code: string, work: Promise<unknown>): Promise<void> {
  await assert.rejects(work, (error) => error instanceof Failure && error.code === code);
}
