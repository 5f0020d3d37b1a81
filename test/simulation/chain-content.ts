import { dirname, resolve } from 'node:path';
import type { ImageFile } from '../../src/hypervisor/index.ts';
import { ChainReader, type LayerReader, openLayer } from '../support/qcow2-reader.ts';
import type { SimDisk, SimFile } from './sim-disk.ts';
import { SimFiles } from './sim-files.ts';

/** Reads chains off a simulated disk as an observer: at once, without faults, and without disturbing anything. */
export class ChainContent {
  readonly #disk: SimDisk;
  readonly #files: SimFiles;
  readonly #layers = new WeakMap<SimFile, { version: number; layer: LayerReader }>();

  constructor(disk: SimDisk) {
    this.#disk = disk;
    this.#files = new SimFiles(disk);
  }

  /** The files below `path` as the headers name them, the oldest first. */
  async follow(path: string): Promise<ImageFile[]> {
    const chain: ImageFile[] = [];
    for (let image: ImageFile | undefined = { path, format: 'qcow2' }; image; ) {
      if (chain.some((other) => other.path === image?.path)) throw new Error(`${path} comes back to itself`);
      chain.unshift(image);
      if (image.format === 'raw') break;
      const { backing } = await this.#layer(image.path);
      image = backing
        ? { path: resolve(dirname(image.path), backing.name), format: backing.format as 'raw' | 'qcow2' }
        : undefined;
    }
    return chain;
  }

  /** Equal for two chains only if they are the same files with the same bytes. */
  keyOf(chain: readonly ImageFile[]): string {
    return chain.map(({ path }) => this.#disk.file(path)?.version ?? 'missing').join('-');
  }

  async read(chain: readonly ImageFile[]): Promise<Buffer> {
    const layers: LayerReader[] = [];
    let raw = null;
    for (const { path, format } of chain) {
      if (format === 'qcow2') {
        layers.unshift(await this.#layer(path));
      } else {
        const file = await this.#files.open(path, 'read');
        raw = { path, file, sizeBytes: await file.sizeBytes() };
      }
    }
    const reader = new ChainReader(layers, raw);
    return reader.read(0, reader.sizeBytes);
  }

  async #layer(path: string): Promise<LayerReader> {
    const file = this.#disk.file(path);
    if (!file) throw new Error(`${path} is missing`);
    const known = this.#layers.get(file);
    if (known?.version === file.version) return known.layer;
    const layer = await openLayer(this.#files, path, { leaks: 'allowed' });
    this.#layers.set(file, { version: file.version, layer });
    return layer;
  }
}
