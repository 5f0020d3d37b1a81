import { readFile } from 'node:fs/promises';
import { assert } from '../../lib/assert.ts';
import type { Clock } from '../../lib/clock.ts';
import { isFailure, messageOf, systemCodeOf } from '../../lib/errors.ts';
import { runCommand } from '../../lib/processes.ts';
import { PauseGuard, QmpClient } from '../../qmp/index.ts';
import { checkMachineConfiguration, type Medium, mediaOf } from '../configuration.ts';
import { hypervisorFailure } from '../errors.ts';
import type { Hypervisor, MachineSockets, PauseReport, RunningMachine, StartRequest } from '../hypervisor.ts';
import type { HostOffer } from '../startability.ts';
import { whilePaused } from '../while-paused.ts';
import { probeAcceleration } from './acceleration.ts';
import { qemuArguments, runPaths, socketsOf } from './command-line.ts';
import { describedFirmware } from './firmware-descriptors.ts';
import { hostOffer } from './host-offer.ts';
import { MediaHere } from './media.ts';
import { QemuMachine } from './qemu-machine.ts';
import { endRun, endTpm, processesOfRun } from './run-processes.ts';
import { startTpm } from './tpm.ts';

/** Machines run by `qemu-system-x86_64` of this host. */
export class QemuHypervisor implements Hypervisor {
  readonly #clock: Clock;
  readonly #media = new MediaHere();
  #acceleration: ReturnType<Hypervisor['acceleration']> | undefined;

  constructor(o: { clock: Clock }) {
    this.#clock = o.clock;
  }

  acceleration(): ReturnType<Hypervisor['acceleration']> {
    this.#acceleration ??= probeAcceleration(this.#clock);
    return this.#acceleration;
  }

  async offer(media: readonly Medium[] = []): Promise<HostOffer> {
    const { accelerator } = await this.acceleration();
    return { ...(await hostOffer(accelerator)), media: await this.#media.among(media) };
  }

  async start(request: StartRequest): Promise<RunningMachine> {
    checkMachineConfiguration(request.configuration);
    const { accelerator } = await this.acceleration();
    const firmware = request.configuration.firmware === 'uefi' ? await describedFirmware() : [];
    const media = await this.#media.among(mediaOf(request.configuration));
    const args = qemuArguments(request, accelerator, { firmware, media });
    const paths = runPaths(request.runDirectory);
    const [command, ...commandArgs] =
      request.networkNamespace === undefined
        ? ['qemu-system-x86_64', ...args]
        : ['ip', 'netns', 'exec', request.networkNamespace, 'qemu-system-x86_64', ...args];
    if (request.configuration.tpm) {
      // The one of an earlier run ends behind its machine, and would keep the new one from the state.
      await endTpm(request.runDirectory, this.#clock);
      await startTpm(request);
    }
    try {
      // With -daemonize the command ends when the machine is ready to be spoken to, or has failed and said why.
      await runCommand(command!, commandArgs);
    } catch (error) {
      await endTpm(request.runDirectory, this.#clock);
      if (isFailure(error, 'TOOL_MISSING')) throw error;
      throw hypervisorFailure(
        'MACHINE_START_FAILED',
        `${request.configuration.name} did not start: ${messageOf(error)}`,
        {
          context: { machine: request.configuration.name, log: paths.logPath },
          cause: error,
        },
      );
    }
    return this.#connect(socketsOf(request), await processIdIn(paths.pidPath));
  }

  attach(sockets: MachineSockets): Promise<RunningMachine> {
    return this.#connect(sockets, undefined);
  }

  processesOf(runDirectory: string): Promise<readonly number[]> {
    return processesOfRun(runDirectory);
  }

  end(runDirectory: string): Promise<void> {
    return endRun(runDirectory, this.#clock);
  }

  whilePaused(
    machines: readonly RunningMachine[],
    limitMs: number,
    work: () => Promise<void>,
  ): Promise<PauseReport> {
    const clock = this.#clock;
    const guard = (stopped: readonly RunningMachine[]) => {
      const clients = stopped.map((machine) => {
        assert(machine instanceof QemuMachine, 'machines of one hypervisor are paused together');
        return machine.monitor;
      });
      return PauseGuard.start({ clients, limitMs, clock });
    };
    return whilePaused({ machines, limitMs, clock, guard, work });
  }

  async #connect(sockets: MachineSockets, processId: number | undefined): Promise<RunningMachine> {
    try {
      const qmp = await QmpClient.connect({ path: sockets.qmpPath, clock: this.#clock });
      return new QemuMachine({ qmp, sockets, ...(processId ? { processId } : {}), clock: this.#clock });
    } catch (error) {
      if (!isFailure(error, 'QMP_DISCONNECTED', 'QMP_UNREACHABLE')) throw error;
      throw hypervisorFailure('MACHINE_NOT_RUNNING', `nothing answers at ${sockets.qmpPath}`, {
        context: { path: sockets.qmpPath },
        cause: error,
      });
    }
  }
}

/** QEMU removes its file when it ends: of one that has ended meanwhile there is none, and nothing answers at its socket. */
async function processIdIn(pidPath: string): Promise<number | undefined> {
  try {
    return Number.parseInt(await readFile(pidPath, 'utf8'), 10);
  } catch (error) {
    if (systemCodeOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}
