import { isFailure, messageOf } from '../../lib/errors.ts';
import type { QmpClient, QmpEvent } from '../../qmp/index.ts';
import { hypervisorFailure } from '../errors.ts';
import type { ImageFile } from '../images.ts';
import { nodeNameOf } from './block-graph.ts';

/** A block job of this length without a word from QEMU is taken for stuck; a commit reports progress by no event. */
const COMMIT_LIMIT_MS = 6 * 60 * 60 * 1000;
/** A job that is ready has nothing left to copy but what was written in the last moment; one that is given up, nothing at all. */
const END_LIMIT_MS = 10_000;

/**
 * QEMU's `block-commit`, one at a time on a device. A commit of a layer in the middle ends by itself. One of the tip becomes ready,
 * keeps tip and base level from then on, and has the guest change over to the base when it is completed: nothing but
 * `complete` does that, because the guest must not run on an owner's file before it is durable that it does.
 */
export class CommitJobs {
  readonly #qmp: QmpClient;

  constructor(qmp: QmpClient) {
    this.#qmp = qmp;
  }

  /** Commits until the layer has left the chain, or, of a tip, until base and tip are level. Throws COMMIT_FAILED. */
  async run(
    deviceName: string,
    tipNode: string,
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
      const end = await this.#untilReadyOrEnded(jobId, async () => {
        await this.#qmp.execute('block-commit', {
          'job-id': jobId,
          device: tipNode,
          'top-node': topNode,
          'base-node': baseNode,
          ...(topNode === tipNode ? {} : { 'backing-file': base.path }),
        });
        return 'begun';
      });
      if (typeof end === 'object') checkEnd(end);
    } catch (error) {
      throw commitFailed(`cannot commit ${top.path}`, error);
    }
  }

  /**
   * Waits for a commit that an earlier process of ours began: it goes on in QEMU without it. One of a layer in the middle comes to
   * its end; one of the tip is `level` then, and goes on.
   */
  async awaitEarlier(deviceName: string): Promise<'level' | 'none'> {
    const jobId = commitJobOf(deviceName);
    const end = await this.#untilReadyOrEnded(jobId, async () => {
      const job = await this.#find(jobId);
      if (!job) return 'none';
      return job.ready ? 'ready' : 'begun';
    });
    return end === 'ready' ? 'level' : 'none';
  }

  /** Has the guest change over to the base. Throws COMMIT_FAILED: what has become of it, its disks tell. */
  async complete(deviceName: string): Promise<void> {
    const jobId = commitJobOf(deviceName);
    try {
      await this.#untilEnded(jobId, () => this.#qmp.execute('block-job-complete', { device: jobId }));
    } catch (error) {
      throw commitFailed(`${deviceName} cannot change over to its base`, error);
    }
  }

  /** Ends a commit wherever it has got to. On return there is none. */
  async abandon(deviceName: string): Promise<void> {
    const jobId = commitJobOf(deviceName);
    if (!(await this.#find(jobId))) return;
    try {
      await this.#untilEnded(jobId, async () => {
        try {
          await this.#qmp.execute('block-job-cancel', { device: jobId, force: true });
        } catch (error) {
          // It has ended meanwhile, or is about to: the event tells, or there is nothing to wait for.
          if (!isFailure(error, 'QMP_COMMAND_FAILED') || (await this.#find(jobId))) throw error;
          return 'none';
        }
      });
    } catch (error) {
      if (await this.#find(jobId)) throw commitFailed(`the commit on ${deviceName} does not end`, error);
    }
  }

  async #find(jobId: string): Promise<{ readonly ready: boolean } | undefined> {
    const jobs = await this.#qmp.execute<{ device: string; ready: boolean }[]>('query-block-jobs');
    return jobs.find(({ device }) => device === jobId);
  }

  /** Waits until the job that `begin` has begun or found is ready or has ended. */
  async #untilReadyOrEnded(
    jobId: string,
    begin: () => Promise<'begun' | 'ready' | 'none'>,
  ): Promise<'ready' | 'none' | QmpEvent> {
    const waiting = new AbortController();
    const event = this.#qmp.expectEvent((found) => isEnd(found, jobId) || isReady(found, jobId), {
      ...{ timeoutMs: COMMIT_LIMIT_MS, signal: waiting.signal },
    });
    try {
      const begun = await begin();
      if (begun !== 'begun') return begun;
      const found = await event;
      return isReady(found, jobId) ? 'ready' : found;
    } finally {
      waiting.abort();
    }
  }

  /** Waits for the end of a job that `act` ends. */
  async #untilEnded(jobId: string, act: () => Promise<unknown>): Promise<void> {
    const waiting = new AbortController();
    const event = this.#qmp.expectEvent((found) => isEnd(found, jobId), {
      ...{ timeoutMs: END_LIMIT_MS, signal: waiting.signal },
    });
    try {
      if ((await act()) !== 'none') checkEnd(await event);
    } finally {
      waiting.abort();
    }
  }
}

/** Throws what QEMU says of a job that has not ended well. */
function checkEnd({ event, data }: QmpEvent): void {
  if (data.error !== undefined) throw hypervisorFailure('COMMIT_FAILED', String(data.error));
  if (event === 'BLOCK_JOB_CANCELLED') throw hypervisorFailure('COMMIT_FAILED', 'it was cancelled');
}

function commitFailed(what: string, error: unknown): unknown {
  if (isFailure(error, 'QMP_DISCONNECTED')) return error;
  return hypervisorFailure('COMMIT_FAILED', `${what}: ${messageOf(error)}`, { cause: error });
}

/** One commit at a time runs on a device, so that its job can be found again by the device's name. */
function commitJobOf(deviceName: string): string {
  return `warmsite-commit-${deviceName.replace(/[^A-Za-z0-9]+/g, '-')}`;
}

function isEnd({ event, data }: QmpEvent, jobId: string): boolean {
  return (event === 'BLOCK_JOB_COMPLETED' || event === 'BLOCK_JOB_CANCELLED') && data.device === jobId;
}

function isReady({ event, data }: QmpEvent, jobId: string): boolean {
  return event === 'BLOCK_JOB_READY' && data.device === jobId;
}
