import type { AreaReader } from '../../lab/index.ts';
import type { DiskImages, ImageFile, ImageReader } from '../../src/hypervisor/index.ts';

/** Everything that a chain reads as; for small disks. */
export async function bytesOf(images: DiskImages, chain: readonly ImageFile[]): Promise<Buffer> {
  await using reader = await images.open(chain);
  return await allBytes(reader);
}

export async function allBytes(reader: Pick<ImageReader, 'sizeBytes' | 'readInto'>): Promise<Buffer> {
  const bytes = Buffer.alloc(reader.sizeBytes);
  await reader.readInto(bytes, 0);
  return bytes;
}

/** For those who look at a disk in parts. */
export function areaOf(reader: Pick<ImageReader, 'readInto'>): AreaReader {
  return {
    read: async (offset, length) => {
      const bytes = Buffer.alloc(length);
      await reader.readInto(bytes, offset);
      return bytes;
    },
  };
}
