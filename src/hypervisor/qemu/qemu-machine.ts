import { rm } from 'node:fs/promises';
import type { Clock } from '../../lib/clock.ts';
import { isFailure, messageOf } from '../../lib/errors.ts';
import type { QmpClient, QmpEvent } from '../../qmp/index.ts';
import type { MachineConfiguration } from '../configuration.ts';
import { hypervisorFailure } from '../errors.ts';
import type {
  CutReport,
  DiskCut,
  MachineDisk,
  MachineEvent,
  MachineSockets,
  MachineState,
  QuiesceReport,
  RunningMachine,
} from '../hypervisor.ts';
import type { ImageFile } from '../images.ts';
import { disksOf, nodeNameOf } from './block-graph.ts';
import { configurationOf } from './captured-configuration.ts';
import { syncFile } from './qemu-images.ts';
import { whileFrozen } from './quiesce.ts';

/** A block job of this length without a word from QEMU is taken for stuck; a commit reports progress by no event. */
const COMMIT_LIMIT_MS = 6 * 60 * 60 * 1000;

/** A running QEMU, spoken to over its machine protocol. */
export class QemuMachine implements RunningMachine {
  readonly sockets: MachineSockets;
  readonly processId: number | undefined;
  readonly gone: Promise<void>;
  readonly #qmp: QmpClient;
  readonly #clock: Clock;

  constructor(o: { qmp: QmpClient; sockets: MachineSockets; processId?: number; clock: Clock }) {
    this.#qmp = o.qmp;
    this.sockets = o.sockets;
    this.processId = o.processId;
    this.#clock = o.clock;
    this.gone = o.qmp.closed.then(() => undefined);
  }

  async state(): Promise<MachineState> {
    const { status } = await this.#qmp.execute<{ status: string }>('query-status');
    switch (status) {
      case 'running':
        return 'running';
      case 'shutdown':
        return 'shut-down';
      case 'guest-panicked':
      case 'internal-error':
      case 'io-error':
        return 'crashed';
      default:
        return 'paused';
    }
  }

  async disks(): Promise<readonly MachineDisk[]> {
    return disksOf(await this.#qmp.execute('query-block'));
  }

  async cut(cuts: readonly DiskCut[]): Promise<CutReport> {
    const disks = await this.disks();
    const added: string[] = [];
    try {
      const actions = [];
      for (const { deviceName, overlay } of cuts) {
        const disk = findDisk(disks, deviceName);
        const node = overlayNodeName(overlay);
        await this.#qmp.execute('blockdev-add', {
          driver: overlay.format,
          'node-name': node,
          discard: 'unmap',
          backing: null,
          file: { driver: 'file', filename: overlay.path },
        });
        added.push(node);
        actions.push({ type: 'blockdev-snapshot', data: { node: disk.tipNode, overlay: node } });
      }
      const before = this.#clock.monotonicMs();
      await this.#qmp.execute('transaction', { actions }, { timeoutMs: 60_000 });
      return { pauseMs: this.#clock.monotonicMs() - before };
    } catch (error) {
      if (isFailure(error, 'QMP_DISCONNECTED', 'QMP_TIMEOUT')) throw error;
      for (const node of added) await this.#deleteNode(node);
      throw hypervisorFailure('CUT_FAILED', `the disks could not be cut: ${messageOf(error)}`, {
        cause: error,
      });
    }
  }

  async commit(deviceName: string, layer: ImageFile): Promise<void> {
    const disk = findDisk(await this.disks(), deviceName);
    const at = disk.chain.findIndex((image) => image.path === layer.path);
    if (at < 0) return; // An earlier, interrupted commit has already taken it out of the chain.
    const base = disk.chain[at - 1];
    const above = disk.chain[at + 1];
    if (!base || !above) {
      throw hypervisorFailure('COMMIT_FAILED', `${layer.path} is not between two layers of ${deviceName}`);
    }
    await this.#commitJob(deviceName, disk, { top: layer, base });
    await syncFile(base.path);
    await syncFile(above.path);
    await this.#deleteNodeOf(layer);
  }

  async commitAll(deviceName: string, base: ImageFile): Promise<void> {
    const disk = findDisk(await this.disks(), deviceName);
    const tip = disk.chain.at(-1)!;
    if (tip.path === base.path) return;
    await this.#commitJob(deviceName, disk, { top: tip, base });
    await syncFile(base.path);
    for (const layer of disk.chain) if (layer.path !== base.path) await this.#deleteNodeOf(layer);
  }

  /**
   * QEMU's `block-commit`. A commit of the tip becomes ready and is then completed, which pivots the guest to the
   * base; one of a layer in the middle ends by itself.
   */
  async #commitJob(
    deviceName: string,
    disk: MachineDisk,
    { top, base }: { top: ImageFile; base: ImageFile },
  ): Promise<void> {
    const nodes = await this.#qmp.execute('query-named-block-nodes', { flat: true });
    const topNode = nodeNameOf(nodes, top);
    const baseNode = nodeNameOf(nodes, base);
    if (!topNode || !baseNode) {
      throw hypervisorFailure('COMMIT_FAILED', `QEMU does not have ${topNode ? base.path : top.path} open`);
    }
    const isTip = topNode === disk.tipNode;
    const jobId = `warmsite-commit-${deviceName.replace(/[^A-Za-z0-9]/g, '-')}`
      .replace(/-+/g, '-')
      .slice(0, 60);
    const options = { timeoutMs: COMMIT_LIMIT_MS };
    const ended = this.#qmp.expectEvent((event) => isJobEnd(event, jobId), options);
    const ready = this.#qmp.expectEvent(
      (event) => isJobEnd(event, jobId) || (event.event === 'BLOCK_JOB_READY' && event.data.device === jobId),
      options,
    );
    try {
      await this.#qmp.execute('block-commit', {
        'job-id': jobId,
        device: disk.tipNode,
        'top-node': topNode,
        'base-node': baseNode,
        ...(isTip ? {} : { 'backing-file': base.path }),
      });
      if (isTip && (await ready).event === 'BLOCK_JOB_READY') {
        await this.#qmp.execute('block-job-complete', { device: jobId });
      }
      const error = (await ended).data.error;
      if (error !== undefined)
        throw hypervisorFailure('COMMIT_FAILED', `the commit of ${top.path} ended: ${String(error)}`);
    } catch (error) {
      if (isFailure(error, 'COMMIT_FAILED', 'QMP_DISCONNECTED')) throw error;
      throw hypervisorFailure('COMMIT_FAILED', `cannot commit ${top.path}: ${messageOf(error)}`, {
        context: { top: top.path, base: base.path },
        cause: error,
      });
    }
  }

  /** Nodes that were added by `blockdev-add` stay open after their layer has left the chain. */
  async #deleteNodeOf(image: ImageFile): Promise<void> {
    const node = nodeNameOf(await this.#qmp.execute('query-named-block-nodes', { flat: true }), image);
    if (node !== undefined && !node.startsWith('#')) await this.#deleteNode(node);
  }

  async #deleteNode(node: string): Promise<void> {
    try {
      await this.#qmp.execute('blockdev-del', { 'node-name': node });
    } catch (error) {
      if (!isFailure(error, 'QMP_COMMAND_FAILED')) throw error;
      // «Not found» and «in use» leave nothing for us to do: the node is gone, or the machine still needs it.
    }
  }

  async configuration(diskIds: Readonly<Record<string, string>>): Promise<MachineConfiguration> {
    return configurationOf(this.#qmp, await this.disks(), diskIds);
  }

  whileFrozen<T>(limitMs: number, work: () => Promise<T>): Promise<QuiesceReport<T>> {
    return whileFrozen({ agentPath: this.sockets.agentPath, limitMs, clock: this.#clock, work });
  }

  async consolePicture(path: string): Promise<void> {
    await rm(path, { force: true });
    try {
      await this.#qmp.execute('screendump', { filename: path });
    } catch (error) {
      if (!isFailure(error, 'QMP_COMMAND_FAILED')) throw error;
      throw hypervisorFailure('CONSOLE_PICTURE_FAILED', `no console picture: ${messageOf(error)}`, {
        cause: error,
      });
    }
  }

  async resume(): Promise<void> {
    await this.#qmp.execute('cont');
  }

  async pressPowerButton(): Promise<void> {
    await this.#qmp.execute('system_powerdown');
  }

  async quit(): Promise<void> {
    try {
      await this.#qmp.execute('quit');
    } catch (error) {
      if (!isFailure(error, 'QMP_DISCONNECTED')) throw error;
    }
    await this.gone;
  }

  onEvent(listener: (event: MachineEvent) => void): () => void {
    return this.#qmp.subscribe((event) => listener({ name: event.event, data: event.data }));
  }

  disconnect(): Promise<void> {
    return this.#qmp.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.disconnect();
  }
}

function findDisk(disks: readonly MachineDisk[], deviceName: string): MachineDisk {
  const disk = disks.find((candidate) => candidate.deviceName === deviceName);
  if (!disk) throw hypervisorFailure('DISK_UNSUPPORTED', `the machine has no disk ${deviceName}`);
  if (disk.unsupported) throw hypervisorFailure('DISK_UNSUPPORTED', `${deviceName}: ${disk.unsupported}`);
  return disk;
}

/** Node names have at most 31 characters; ours is made of the layer's directory (disk) and file name (cut). */
function overlayNodeName(overlay: ImageFile): string {
  const parts = overlay.path.split('/');
  const cut = (parts.at(-1) ?? '').replace(/\.[^.]*$/, '');
  const disk = parts.at(-2) ?? '';
  return `w${hashOf(disk)}-${cut.slice(-26)}`.slice(0, 31);
}

/** Three characters that tell the disks of one cut apart; a clash is refused by QEMU and fails the cut. */
function hashOf(text: string): string {
  let hash = 0;
  for (const character of text) hash = (hash * 31 + character.codePointAt(0)!) % 46656;
  return hash.toString(36).padStart(3, '0');
}

function isJobEnd(event: QmpEvent, jobId: string): boolean {
  return (
    (event.event === 'BLOCK_JOB_COMPLETED' || event.event === 'BLOCK_JOB_CANCELLED') &&
    event.data.device === jobId
  );
}
