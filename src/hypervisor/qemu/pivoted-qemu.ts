import type { QmpClient } from '../../qmp/index.ts';
import type { MachineDisk, MachineState } from '../hypervisor.ts';
import type { PivotedMachine } from '../pivot.ts';
import { disksOf } from './block-graph.ts';
import { CommitJobs } from './commit-jobs.ts';

/** A running QEMU as far as a pivot needs it: the same for a site and for the guard that stands in for it. */
export class PivotedQemu implements PivotedMachine {
  readonly commits: CommitJobs;
  readonly #qmp: QmpClient;

  constructor(qmp: QmpClient) {
    this.#qmp = qmp;
    this.commits = new CommitJobs(qmp);
  }

  async state(): Promise<MachineState> {
    const { status } = await this.#qmp.execute<{ status: string }>('query-status');
    switch (status) {
      case 'running':
        return 'running';
      case 'shutdown':
        return 'shut-down';
      case 'io-error':
        return 'io-error';
      case 'guest-panicked':
      case 'internal-error':
        return 'crashed';
      default:
        return 'paused';
    }
  }

  async disks(): Promise<readonly MachineDisk[]> {
    return disksOf(await this.#qmp.execute('query-block'));
  }

  async pause(): Promise<void> {
    await this.#qmp.execute('stop');
  }

  async resume(): Promise<void> {
    await this.#qmp.execute('cont');
  }

  completeCommit(deviceName: string): Promise<void> {
    return this.commits.complete(deviceName);
  }

  abandonCommit(deviceName: string): Promise<void> {
    return this.commits.abandon(deviceName);
  }
}
