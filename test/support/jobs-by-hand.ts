import { join } from 'node:path';
import { Audit } from '../../src/control/base/audit.ts';
import { openDatabase } from '../../src/control/base/database.ts';
import { EventHub } from '../../src/control/base/event-hub.ts';
import {
  type JobContext,
  type JobHandler,
  type JobKind,
  type JobRecorder,
  Jobs,
} from '../../src/control/base/jobs.ts';
import { cancelled } from '../../src/lib/clock.ts';
import { silentLog } from '../../src/lib/log.ts';
import { systemRandom } from '../../src/lib/random.ts';
import { FakeClock } from './fake-clock.ts';
import { type CleanUp, temporaryDirectory } from './temporary.ts';

/** Jobs whose handlers end when the test says so; the same file is opened again for another process. */
export async function jobsIn(t: CleanUp) {
  const path = join(await temporaryDirectory(t), 'site.db');
  const clock = new FakeClock();
  const runs: {
    kind: string;
    context: JobContext;
    finish: (result: unknown) => void;
    fail: (error: Error) => void;
  }[] = [];
  const handler = (kind: string, repeatable: boolean, unwinds = false): JobHandler => ({
    ...{ repeatable, unwinds },
    run: (context) =>
      new Promise((resolve, reject) => {
        const end = () => {
          if (!hangs) reject(cancelled(context.signal));
        };
        context.signal.addEventListener('abort', end);
        if (context.signal.aborted) end();
        runs.push({ kind, context, finish: resolve, fail: reject });
      }),
  });
  let hangs = false;
  /** `own` takes the place of handlers that end by hand. */
  const open = (recorder?: JobRecorder, own: Partial<Record<JobKind, JobHandler>> = {}) => {
    const database = openDatabase(path);
    const audit = new Audit({ database, clock });
    const events = new EventHub();
    const jobs = new Jobs({
      ...{ database, clock, random: systemRandom, log: silentLog, events, audit },
      ...(recorder ? { recorder } : {}),
      handlers: {
        'point.create': handler('point.create', true),
        'point.verify': handler('point.verify', true),
        'failover.test': handler('failover.test', false),
        'failover.start': handler('failover.start', false),
        'failover.restart': handler('failover.restart', false),
        'failover.stop': handler('failover.stop', true),
        'failover.forward': handler('failover.forward', false),
        'failover.prepare': handler('failover.prepare', false),
        'failover.cede': handler('failover.cede', true, true),
        'failover.undo': handler('failover.undo', true),
        'failover.take': handler('failover.take', false),
        'failover.cleanup': handler('failover.cleanup', true),
        'failover.export': handler('failover.export', true, true),
        'seed.export': handler('seed.export', true, true),
        'seed.import': handler('seed.import', true),
        'plan.run': handler('plan.run', true),
        'drill.run': handler('drill.run', false),
        ...own,
      },
    });
    jobs.open();
    const end = async () => {
      await jobs.close();
      database.close();
    };
    let closed: Promise<void> | undefined;
    const close = () => {
      closed ??= end();
      return closed;
    };
    return { jobs, audit, events, database, close };
  };
  /** While `does`, handlers do not end when they are cancelled: their process is killed before. */
  const hang = (does = true) => {
    hangs = does;
  };
  return { clock, runs, open, hang };
}
