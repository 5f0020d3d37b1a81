import { chmod, mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { runCommand } from '../../src/lib/processes.ts';

/** What a machine has told of itself, by the clock of its host. */
export interface HeardEvent {
  readonly event: string;
  readonly atMs: number;
}

/**
 * Stands where the program is looked for, and becomes it with a monitor more, which writes all that the machine tells into a file from its first
 * moment on; so the times are QEMU's own. A lab guest gets the port of its ledger as well, `ledger` in the run directory. What copies it out
 * of the pipe ends with the machine.
 */
const SCRIPT = `#!/bin/sh
run=
for argument; do
  case $argument in socket,id=qmp,path=*) run=\${argument#socket,id=qmp,path=}; run=\${run%%,*}; run=\${run%/*} ;; esac
done
[ -n "$run" ] || exec QEMU "$@"
mkfifo HEARD/$$.in HEARD/$$.out
exec 3<> HEARD/$$.in 4<> HEARD/$$.out
cat HEARD/$$.out > HEARD/$$.told 3>&- 4>&- 2> /dev/null < /dev/null &
printf '{"execute":"qmp_capabilities"}\\n' >&3
exec QEMU "$@" -chardev pipe,id=heard,path=HEARD/$$ -mon chardev=heard,mode=control \\
  -chardev socket,id=ledger,path=$run/ledger,server=on,wait=off -device virtserialport,chardev=ledger,name=org.warmsite.ledger
`;

const OPEN = Number.POSITIVE_INFINITY;
const ENDS: ReadonlySet<string> = new Set(['STOP', 'SHUTDOWN']);

/** The QEMU of a site, which is listened to from outside. */
export class HeardQemu {
  /** What is put before the other places where programs are looked for. */
  readonly directory: string;

  private constructor(directory: string) {
    this.directory = directory;
  }

  static async make(directory: string): Promise<HeardQemu> {
    await mkdir(join(directory, 'heard'), { recursive: true });
    const { stdout } = await runCommand('sh', ['-c', 'command -v qemu-system-x86_64']);
    const program = join(directory, 'qemu-system-x86_64');
    const script = SCRIPT.replaceAll('QEMU', stdout.trim()).replaceAll('HEARD', join(directory, 'heard'));
    await writeFile(program, script);
    await chmod(program, 0o755);
    return new HeardQemu(directory);
  }

  /** What each machine has told that was started, in the order of their beginnings. */
  async machines(): Promise<readonly (readonly HeardEvent[])[]> {
    const heard = join(this.directory, 'heard');
    const told = (await readdir(heard)).filter((name) => name.endsWith('.told'));
    const files = await Promise.all(
      told.map(async (name) => {
        const path = join(heard, name);
        return { bornAtMs: (await stat(path)).birthtimeMs, text: await readFile(path, 'utf8') };
      }),
    );
    return files
      .filter(({ text }) => text.includes('\n'))
      .toSorted((one, other) => one.bornAtMs - other.bornAtMs)
      .map(({ text }) => eventsIn(text));
  }
}

function eventsIn(text: string): HeardEvent[] {
  // What is being written has no line end yet.
  const lines = text.split('\n').slice(0, -1);
  return lines.flatMap((line) => {
    const { event, timestamp } = JSON.parse(line) as {
      event?: string;
      timestamp: { seconds: number; microseconds: number };
    };
    if (event === undefined) return [];
    return [{ event, atMs: timestamp.seconds * 1000 + timestamp.microseconds / 1000 }];
  });
}

/**
 * When its processors ran: each time from before the first instruction until after the last one. A machine that is started running says so before
 * anybody can hear it: that time is open at its beginning, as that of one that runs is at its end.
 */
export function stretchesOf(events: readonly HeardEvent[]): { fromMs: number; untilMs: number }[] {
  const isHeardFrom = events.find(({ event }) => event === 'RESUME' || ENDS.has(event))?.event === 'RESUME';
  const stretches = isHeardFrom ? [] : [{ fromMs: Number.NEGATIVE_INFINITY, untilMs: OPEN }];
  for (const { event, atMs } of events) {
    const last = stretches.at(-1);
    if (event === 'RESUME' && last?.untilMs !== OPEN) stretches.push({ fromMs: atMs, untilMs: OPEN });
    if (ENDS.has(event) && last?.untilMs === OPEN) last.untilMs = atMs;
  }
  return stretches;
}
