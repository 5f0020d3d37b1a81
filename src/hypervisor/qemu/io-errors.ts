import type { Standstill } from '../hypervisor.ts';
import { failedDevicesOf } from './block-graph.ts';

/** A machine has no more disks than this; what a process tells that a guest may have taken over has a limit. */
const NODES_MAX = 256;

/**
 * The I/O errors that QEMU has stopped its guest for (BLOCK_IO_ERROR, QAPI schema block-core.json), from the stop until it runs on.
 * A device's `io-status` alone does not tell: the one of a disk that `-blockdev` has made keeps its first error for ever.
 */
export class IoErrors {
  /** By node: every error was a lack of space. */
  readonly #heard = new Map<string, boolean>();

  hear(event: string, data: Readonly<Record<string, unknown>> | undefined): void {
    if (event === 'RESUME') this.#heard.clear();
    if (event !== 'BLOCK_IO_ERROR' || data?.action !== 'stop') return;
    const node = String(data['node-name'] ?? '');
    if (!this.#heard.has(node) && this.#heard.size >= NODES_MAX) return;
    this.#heard.set(node, data.nospace === true && this.#heard.get(node) !== false);
  }

  /** Why a guest stands still in the state `io-error`, by `query-block` where nothing was heard: it stopped before we came. */
  standstill(queryBlock: unknown): Standstill {
    const failed = failedDevicesOf(queryBlock);
    const heard = failed.filter(({ tipNode }) => this.#heard.has(tipNode));
    // A cut may have given the disk another tip since.
    const devices = heard.length > 0 ? heard : failed;
    const errors = this.#heard.size > 0 ? [...this.#heard.values()] : devices.map(({ isFull }) => isFull);
    const isFull = errors.length > 0 && errors.every((wasFull) => wasFull);
    return {
      why: isFull ? 'no-space' : 'io-error',
      deviceNames: devices.map(({ deviceName }) => deviceName),
    };
  }
}
