import { createHash } from 'node:crypto';
import { rm } from 'node:fs/promises';
import type { Clock } from '../../lib/clock.ts';
import { isFailure, messageOf } from '../../lib/errors.ts';
import { Mutex } from '../../lib/mutex.ts';
import { nodeFiles } from '../../lib/node-files.ts';
import { systemRandom } from '../../lib/random.ts';
import { type QmpClient, thawAbandoned } from '../../qmp/index.ts';
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
  Pivot,
  PivotOptions,
  PivotReport,
  PreparedCut,
  QuiesceReport,
  RunningMachine,
  Standstill,
} from '../hypervisor.ts';
import type { ImageFile } from '../images.ts';
import { pivot, settlePivots } from '../pivot.ts';
import { AgentPortWatch } from './agent-port.ts';
import { fileNodesOf, nodeNameOf, nodeSizesOf } from './block-graph.ts';
import { configurationOf, identityOf } from './captured-configuration.ts';
import { runInGuest } from './guest-command.ts';
import { IoErrors } from './io-errors.ts';
import { PivotGuard } from './pivot-guard.ts';
import { PivotedQemu } from './pivoted-qemu.ts';
import { syncFile } from './qemu-images.ts';
import { whileFrozen } from './quiesce.ts';

/** A running QEMU, spoken to over its machine protocol. */
export class QemuMachine implements RunningMachine {
  readonly sockets: MachineSockets;
  readonly processId: number | undefined;
  readonly gone: Promise<void>;
  readonly #qmp: QmpClient;
  readonly #clock: Clock;
  readonly #base: PivotedQemu;
  /** What is done through the guest's agent, one after the other: freezes, thaws, commands. */
  readonly #freezing = new Mutex();
  readonly #letGo = new AbortController();
  readonly #ioErrors = new IoErrors();

  constructor(o: { qmp: QmpClient; sockets: MachineSockets; processId?: number; clock: Clock }) {
    this.#qmp = o.qmp;
    this.sockets = o.sockets;
    this.processId = o.processId;
    this.#clock = o.clock;
    this.#base = new PivotedQemu(o.qmp);
    this.gone = o.qmp.closed.then(() => undefined);
    o.qmp.subscribe(({ event, data }) => this.#ioErrors.hear(event, data));
  }

  /** The connection that a pause guard shares. */
  get monitor(): QmpClient {
    return this.#qmp;
  }

  state(): Promise<MachineState> {
    return this.#base.state();
  }

  async hasBegun(): Promise<boolean> {
    return (await this.#qmp.execute<{ status: string }>('query-status')).status !== 'prelaunch';
  }

  async standstill(): Promise<Standstill | undefined> {
    const state = await this.#base.state();
    if (state === 'running') return undefined;
    if (state !== 'io-error') return { why: state };
    return this.#ioErrors.standstill(await this.#qmp.execute('query-block'));
  }

  identity(): Promise<MachineIdentity> {
    return identityOf(this.#qmp);
  }

  disks(): Promise<readonly MachineDisk[]> {
    return this.#base.disks();
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
    const snapshots = await orAbandoned(async () => {
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
        all.push({ node: tips[index]!, overlay: node });
      }
      return all;
    });
    const seal = () =>
      orAbandoned(async () => {
        await this.#growOverlays(snapshots);
        const actions = snapshots.map((data) => ({ type: 'blockdev-snapshot', data }));
        const before = this.#clock.monotonicMs();
        await this.#qmp.execute('transaction', { actions }, { timeoutMs: 60_000 });
        return { pauseMs: this.#clock.monotonicMs() - before };
      });
    return { seal };
  }

  /**
   * Their owner may have grown disks since their overlays were written. Grown after the cut, an overlay would read as zeros where the
   * guest has written meanwhile; one that nothing lies below is grown and shows what will be below it.
   */
  async #growOverlays(
    snapshots: readonly { readonly node: string; readonly overlay: string }[],
  ): Promise<void> {
    const sizes = nodeSizesOf(await this.#qmp.execute('query-named-block-nodes', { flat: true }));
    for (const { node, overlay } of snapshots) {
      const [size = 0, own = 0] = [sizes.get(node), sizes.get(overlay)];
      if (own < size) await this.#qmp.execute('block_resize', { 'node-name': overlay, size });
    }
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
    const { commits } = this.#base;
    if ((await commits.awaitEarlier(deviceName)) === 'level') await commits.abandon(deviceName);
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
    await commits.run(deviceName, disk.tipNode, { top: layer, base });
    await syncFile(base.path);
    await syncFile(above.path);
    await this.#deleteNodeOf(layer);
  }

  async commitTip(deviceName: string, base: ImageFile): Promise<void> {
    const { commits } = this.#base;
    if ((await commits.awaitEarlier(deviceName)) === 'level') return;
    const disk = findDisk(await this.disks(), deviceName);
    const tip = disk.chain.at(-1);
    if (!tip || disk.chain.every(({ path }) => path !== base.path)) {
      throw hypervisorFailure('COMMIT_FAILED', `${deviceName} does not lie on ${base.path}`);
    }
    if (tip.path !== base.path) await commits.run(deviceName, disk.tipNode, { top: tip, base });
  }

  pivot(pivots: readonly Pivot[], options: PivotOptions): Promise<PivotReport> {
    const clock = this.#clock;
    const { qmpPath } = this.sockets;
    const guard = () => PivotGuard.start({ orders: { qmpPath, pivots, options }, clock });
    return pivot({ machine: this.#base, pivots, files: nodeFiles, clock, guard, options });
  }

  settlePivots(pivots: readonly Pivot[], options: PivotOptions): Promise<void> {
    return settlePivots({ machine: this.#base, pivots, files: nodeFiles, options });
  }

  async letGoOf(layers: readonly ImageFile[]): Promise<void> {
    // The youngest first: a node that another one has as its backing file cannot be deleted.
    for (const layer of [...layers].reverse()) await this.#deleteNodeOf(layer);
    await this.#deleteOrphans(await this.disks());
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
    const watchAgent = () => new AgentPortWatch(this.#qmp);
    const o = { agentPath, watchAgent, limitMs, clock: this.#clock, work };
    return this.#freezing.run(() => whileFrozen(o));
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

  async announce(): Promise<void> {
    await this.#qmp.execute('announce-self', { ...ANNOUNCEMENT });
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

  pause(): Promise<void> {
    return this.#base.pause();
  }

  resume(): Promise<void> {
    return this.#base.resume();
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

/** In milliseconds: five rounds within about a second, as after a live migration. */
const ANNOUNCEMENT = { initial: 50, max: 550, rounds: 5, step: 100 } as const;

const OUR_NODE = /^warmsite-[0-9a-f]{22}$/;

/** Node names have at most 31 characters; ours follow from the path of the layer, which no other one ever has. */
function overlayNodeName(overlay: ImageFile): string {
  return `warmsite-${createHash('sha256').update(overlay.path).digest('hex').slice(0, 22)}`;
}
