import { Failure } from '../../src/lib/errors.ts';
import { type Log, type LogFields, silentLog } from '../../src/lib/log.ts';
import { type FakeDisk, FakeMachine } from '../support/fake-machine.ts';
import type { SimCalls } from './leases/sim-calls.ts';
import type { SimHost } from './leases/sim-host.ts';
import type { Life } from './life.ts';
import { SimFiles } from './sim-files.ts';
import type { SimProcess } from './turns.ts';

/** A site on its host, whose process is begun again and again. */
interface HostedSite {
  readonly name: string;
  readonly siteId: string;
  readonly host: SimHost;
  /** Of the process that runs now, once it is open. */
  readonly open: { readonly process: SimProcess; readonly opening: AsyncDisposableStack } | undefined;
  boot(): void;
}

/** Its host has power again. */
export function power(site: Pick<HostedSite, 'host' | 'boot'>): void {
  site.host.giveBackPower();
  site.boot();
}

/** In good order, as `systemctl stop` does it; among `closing` meanwhile. Whether the site is to be started again: nobody else has done so. */
export async function closeInOrder<T extends HostedSite>(
  site: T,
  { calls, closing, life }: { readonly calls: SimCalls; readonly closing: Set<T>; readonly life: Life },
): Promise<boolean> {
  const { open } = site;
  calls.serve(site.siteId, undefined);
  closing.add(site);
  open?.process.onEnd(() => closing.delete(site));
  try {
    await open?.opening.disposeAsync();
  } catch (error) {
    life.troubled(`${site.name} close`, error);
  }
  return site.open === open;
}

/** The process of a machine on a host: it ends with that, and outlives every process of a site. */
export async function startGuest(
  host: SimHost,
  disks: readonly FakeDisk[],
  paused: boolean,
): Promise<FakeMachine> {
  const process = host.process('Q');
  const guest = await FakeMachine.start({
    ...{ files: new SimFiles(host.disk), locks: host.locks, process, disks, paused },
  });
  const forget = host.carries(guest);
  guest.onGone(() => {
    forget();
    process.kill();
  });
  return guest;
}

interface Listeners {
  /** Something failed, for the world to judge. */
  readonly onTrouble: (where: string, error: unknown) => void;
  /** For whoever reads the trace. */
  readonly onLog: (said: string) => void;
}

/** The log of a site; what is logged with an error that is no failure is a bug. */
export function judgedLog(name: string, { onLog, onTrouble }: Listeners): Log {
  const look = (event: string, { error, reason }: LogFields = {}) => {
    onLog(`${name}: ${event} ${reason ?? (error instanceof Error ? error.message : '')}`);
    if (error instanceof Error && !(error instanceof Failure)) onTrouble(`${name} ${event}`, error);
  };
  const log: Log = { ...silentLog, warn: look, error: look, with: () => log };
  return log;
}
