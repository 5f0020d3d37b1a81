import { createHash } from 'node:crypto';
import { rm } from 'node:fs/promises';
import type { Clock } from '../../lib/clock.ts';
import { isFailure, messageOf } from '../../lib/errors.ts';
import { Mutex } from '../../lib/mutex.ts';
import { systemRandom } from '../../lib/random.ts';
import { type QmpClient, type QmpEvent, thawAbandoned } from '../../qmp/index.ts';
import type { MachineConfiguration } from '../configuration.ts';
import { hypervisorFailure } from '../errors.ts';
import type {
  CutReport,
  DiskCut,
  DiskLimit,
  GuestCommand,
  GuestCommandReport,
  MachineDisk,
  MachineEvent,
  MachineIdentity,
  MachineSockets,
  MachineState,
  PreparedCut,
  QuiesceReport,
  RunningMachine,
} from '../hypervisor.ts';
import type { ImageFile } from '../images.ts';
import { disksOf, fileNodesOf, nodeNameOf } from './block-graph.ts';
import { configurationOf, identityOf } from './captured-configuration.ts';
import { runInGuest } from './guest-command.ts';
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
  /** What is done through the guest's agent, one after the other: freezes, thaws, commands. */
  readonly #freezing = new Mutex();
  readonly #letGo = new AbortController();

  constructor(o: { qmp: QmpClient; sockets: MachineSockets; processId?: number; clock: Clock }) {
    this.#qmp = o.qmp;
    this.sockets = o.sockets;
    this.processId = o.processId;
    this.#clock = o.clock;
    this.gone = o.qmp.closed.then(() => undefined);
  }

  /** The connection that a pause guard shares. */
  get monitor(): QmpClient {
    return this.#qmp;
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

  identity(): Promise<MachineIdentity> {
    return identityOf(this.#qmp);
  }

  async disks(): Promise<readonly MachineDisk[]> {
    return disksOf(await this.#qmp.execute('query-block'));
  }

  async cut(cuts: readonly DiskCut[]): Promise<CutReport> {
    return (await this.prepareCut(cuts)).seal();
  }

  async prepareCut(cuts: readonly DiskCut[]): Promise<PreparedCut> {
    const disks = await this.disks();
    const tips = cuts.map(({ deviceName }) => findDisk(disks, deviceName).tipNode);
    await this.#deleteOrphans(disks);
    const added: string[] = [];
    const orAbandoned = async <T>(work: () => Promise<T>): Promise<T> => {
      try {
        return await work();
      } catch (error) {
        if (isFailure(error, 'QMP_DISCONNECTED', 'QMP_TIMEOUT')) throw error;
        for (const node of added) await this.#deleteNode(node);
        throw hypervisorFailure('CUT_FAILED', `the disks could not be cut: ${messageOf(error)}`, {
          cause: error,
        });
      }
    };
    const actions = await orAbandoned(async () => {
      const all = [];
      for (const [index, { overlay }] of cuts.entries()) {
        const node = overlayNodeName(overlay);
        await this.#qmp.execute('blockdev-add', {
          driver: overlay.format,
          'node-name': node,
          discard: 'unmap',
          backing: null,
          file: { driver: 'file', filename: overlay.path },
        });
        added.push(node);
        all.push({ type: 'blockdev-snapshot', data: { node: tips[index], overlay: node } });
      }
      return all;
    });
    const seal = () =>
      orAbandoned(async () => {
        const before = this.#clock.monotonicMs();
        await this.#qmp.execute('transaction', { actions }, { timeoutMs: 60_000 });
        return { pauseMs: this.#clock.monotonicMs() - before };
      });
    return { seal };
  }

  async growDisk(deviceName: string, sizeBytes: number): Promise<void> {
    const disk = findDisk(await this.disks(), deviceName);
    if (disk.sizeBytes >= sizeBytes) return;
    await this.#qmp.execute('block_resize', { 'node-name': disk.tipNode, size: sizeBytes });
  }

  async watchTips(offsets: Readonly<Record<string, number>>): Promise<void> {
    const disks = await this.disks();
    const nodes = await this.#qmp.execute('query-named-block-nodes', { flat: true });
    for (const { deviceName, chain } of disks) {
      const offset = offsets[deviceName];
      const tip = chain.at(-1);
      if (offset === undefined || !tip) continue;
      for (const node of fileNodesOf(nodes, tip.path)) {
        await this.#qmp.execute('block-set-write-threshold', {
          'node-name': node,
          'write-threshold': offset,
        });
      }
    }
  }

  async limitDisks({ bytesPerSecond = 0, operationsPerSecond = 0 }: DiskLimit): Promise<void> {
    for (const { deviceName } of await this.disks()) {
      await this.#qmp.execute('block_set_io_throttle', {
        id: deviceName,
        // Devices of one throttle group share what it allows (QEMU, docs/throttle.txt).
        group: 'warmsite',
        ...{ bps: bytesPerSecond, bps_rd: 0, bps_wr: 0 },
        ...{ iops: operationsPerSecond, iops_rd: 0, iops_wr: 0 },
      });
    }
  }

  async commit(deviceName: string, layer: ImageFile): Promise<void> {
    await this.#endEarlierCommit(deviceName);
    const disk = findDisk(await this.disks(), deviceName);
    const at = disk.chain.findIndex((image) => image.path === layer.path);
    if (at < 0) {
      // An earlier, interrupted commit has already taken it out of the chain, but perhaps not let go of its file.
      await this.#deleteNodeOf(layer);
      return;
    }
    const base = disk.chain[at - 1];
    const above = disk.chain[at + 1];
    if (!base || !above) {
      throw hypervisorFailure('COMMIT_FAILED', `${layer.path} is not between two layers of ${deviceName}`);
    }
    await this.#commit(deviceName, disk, { top: layer, base });
    await syncFile(base.path);
    await syncFile(above.path);
    await this.#deleteNodeOf(layer);
  }

  async commitAll(deviceName: string, base: ImageFile): Promise<void> {
    await this.#endEarlierCommit(deviceName);
    const disk = findDisk(await this.disks(), deviceName);
    const at = disk.chain.findIndex((image) => image.path === base.path);
    if (at < 0) throw hypervisorFailure('COMMIT_FAILED', `${deviceName} does not lie on ${base.path}`);
    const above = disk.chain.slice(at + 1);
    if (above.length > 0) {
      await this.#commit(deviceName, disk, { top: above.at(-1)!, base });
      await syncFile(base.path);
      // The youngest first: a node that another one has as its backing file cannot be deleted.
      for (const layer of above.reverse()) await this.#deleteNodeOf(layer);
    }
    await this.#deleteOrphans(await this.disks());
  }

  /** QEMU's `block-commit`, of the tip or of a layer in the middle. */
  async #commit(
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
    const jobId = commitJobOf(deviceName);
    try {
      const end = await this.#untilJobEnds(jobId, async () => {
        await this.#qmp.execute('block-commit', {
          'job-id': jobId,
          device: disk.tipNode,
          'top-node': topNode,
          'base-node': baseNode,
          ...(topNode === disk.tipNode ? {} : { 'backing-file': base.path }),
        });
        return 'begun';
      });
      const error = end?.data.error;
      if (error === undefined) return;
      throw hypervisorFailure('COMMIT_FAILED', `the commit of ${top.path} ended: ${String(error)}`);
    } catch (error) {
      if (isFailure(error, 'COMMIT_FAILED', 'QMP_DISCONNECTED')) throw error;
      throw hypervisorFailure('COMMIT_FAILED', `cannot commit ${top.path}: ${messageOf(error)}`, {
        context: { top: top.path, base: base.path },
        cause: error,
      });
    }
  }

  /** A commit that an earlier process of ours began goes on in QEMU without it: it is brought to its end. */
  async #endEarlierCommit(deviceName: string): Promise<void> {
    const jobId = commitJobOf(deviceName);
    await this.#untilJobEnds(jobId, async () => {
      const jobs = await this.#qmp.execute<{ device: string; ready: boolean }[]>('query-block-jobs');
      const job = jobs.find(({ device }) => device === jobId);
      if (!job) return 'none';
      return job.ready ? 'ready' : 'begun';
    });
  }

  /**
   * Waits for the end of the job that `begin` has begun or found. A commit of the tip becomes ready and is then
   * completed, which pivots the guest to the base; one of a layer in the middle ends by itself.
   */
  async #untilJobEnds(
    jobId: string,
    begin: () => Promise<'begun' | 'ready' | 'none'>,
  ): Promise<QmpEvent | undefined> {
    const waiting = new AbortController();
    const options = { timeoutMs: COMMIT_LIMIT_MS, signal: waiting.signal };
    const isEnd = (event: QmpEvent) => isJobEnd(event, jobId);
    const isReady = ({ event, data }: QmpEvent) => event === 'BLOCK_JOB_READY' && data.device === jobId;
    const ended = this.#qmp.expectEvent(isEnd, options);
    const readyOrEnded = this.#qmp.expectEvent((event) => isEnd(event) || isReady(event), options);
    try {
      const begun = await begin();
      if (begun === 'none') return undefined;
      if (begun === 'ready' || isReady(await readyOrEnded)) {
        await this.#qmp.execute('block-job-complete', { device: jobId });
      }
      return await ended;
    } finally {
      waiting.abort();
    }
  }

  /** Nodes that were added by `blockdev-add` stay open after their layer has left the chain. */
  async #deleteNodeOf(image: ImageFile): Promise<void> {
    const node = nodeNameOf(await this.#qmp.execute('query-named-block-nodes', { flat: true }), image);
    if (node !== undefined && !node.startsWith('#')) await this.#deleteNode(node);
  }

  /**
   * Nodes of ours that are in no chain: a process of ours died between adding them and using them, or between using
   * them and deleting them. They would hold files open, and with them the space of removed ones.
   */
  async #deleteOrphans(disks: readonly MachineDisk[]): Promise<void> {
    const used = new Set(disks.flatMap(({ chain }) => chain.map(overlayNodeName)));
    const nodes = await this.#qmp.execute<{ 'node-name': string }[]>('query-named-block-nodes', {
      flat: true,
    });
    for (const { 'node-name': node } of nodes) {
      if (OUR_NODE.test(node) && !used.has(node)) await this.#deleteNode(node);
    }
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
    const { agentPath } = this.sockets;
    return this.#freezing.run(() => whileFrozen({ agentPath, limitMs, clock: this.#clock, work }));
  }

  async thawAbandoned(answerMs: number): Promise<'thawed' | 'not-frozen' | 'silent'> {
    const { agentPath } = this.sockets;
    if (agentPath === undefined) return 'not-frozen';
    const { signal } = this.#letGo;
    const random = systemRandom;
    return this.#freezing.run(() =>
      thawAbandoned({ agentPath, answerMs, clock: this.#clock, random, signal }),
    );
  }

  runInGuest(command: GuestCommand): Promise<GuestCommandReport> {
    const { agentPath } = this.sockets;
    return this.#freezing.run(() => runInGuest(agentPath, command, this.#clock));
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

  async pause(): Promise<void> {
    await this.#qmp.execute('stop');
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
    this.#letGo.abort();
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

const OUR_NODE = /^warmsite-[0-9a-f]{22}$/;

/** Node names have at most 31 characters; ours follow from the path of the layer, which no other one ever has. */
function overlayNodeName(overlay: ImageFile): string {
  return `warmsite-${createHash('sha256').update(overlay.path).digest('hex').slice(0, 22)}`;
}

/** One commit at a time runs on a device, so that its job can be found again by the device's name. */
function commitJobOf(deviceName: string): string {
  return `warmsite-commit-${deviceName.replace(/[^A-Za-z0-9]+/g, '-')}`;
}

function isJobEnd(event: QmpEvent, jobId: string): boolean {
  return (
    (event.event === 'BLOCK_JOB_COMPLETED' || event.event === 'BLOCK_JOB_CANCELLED') &&
    event.data.device === jobId
  );
}
