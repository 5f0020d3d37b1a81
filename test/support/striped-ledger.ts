import { connect, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { checkLedgerDisks, LEDGER_AREAS, type LedgerCheck } from '../../lab/index.ts';
import type { DiskImages, ImageFile } from '../../src/hypervisor/index.ts';
import { areaOf } from './image-bytes.ts';
import type { CleanUp } from './temporary.ts';

const DISKS_EACH = LEDGER_AREAS.length;

/** In a lab guest: gives its part of a ledger over `machines` guests to the host. Its own ledger ends. */
export function stripeScript(machine: number, machines: number): string {
  const wipe = (device: string) => `labtool fill --device ${device} --bytes 16777216 --pattern zero`;
  const stripe =
    `labtool stripe --devices /dev/vdb1,/dev/vda3 --first ${machine * DISKS_EACH} --total ${machines * DISKS_EACH}` +
    ' --port /dev/virtio-ports/org.warmsite.ledger';
  return [
    'while [ ! -e /run/ledger.pid ]; do usleep 20000; done; ledger stop',
    ...[wipe('/dev/vdb1'), wipe('/dev/vda3')],
    `until ${stripe}; do usleep 50000; done >/dev/null 2>/run/log/stripe.log </dev/null &`,
  ].join('; ');
}

/**
 * The one writer of a ledger over the disks of several guests: it hands a record to the next machine when the one before is
 * durable on its own.
 */
export class StripedLedger {
  readonly #sockets: readonly Socket[];
  readonly #answers: readonly AsyncIterator<string>[];
  readonly #done: Promise<void>;
  #isStopping = false;
  #last = 0;

  private constructor(sockets: readonly Socket[]) {
    this.#sockets = sockets;
    this.#answers = sockets.map((input) => createInterface({ input })[Symbol.asyncIterator]());
    this.#done = this.#write();
    // `stop` tells.
    this.#done.catch(() => undefined);
  }

  static async start(t: CleanUp, paths: readonly string[]): Promise<StripedLedger> {
    const sockets = await Promise.all(paths.map(connected));
    t.after(() => {
      for (const socket of sockets) socket.destroy();
    });
    return new StripedLedger(sockets);
  }

  async #write(): Promise<void> {
    while (!this.#isStopping) {
      const seq = this.#last + 1;
      const machine = Math.floor(((seq - 1) % (this.#sockets.length * DISKS_EACH)) / DISKS_EACH);
      this.#sockets[machine]!.write(`${seq}\n`);
      const { value } = await this.#answers[machine]!.next();
      if (!String(value).startsWith(`${seq} `)) throw new Error(`${value} is no answer to record ${seq}`);
      this.#last = seq;
    }
  }

  /** This many records are durable, at least. */
  get last(): number {
    return this.#last;
  }

  /** Fails if the writing has failed. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    await this.#done;
  }
}

function connected(path: string): Promise<Socket> {
  const socket = connect(path);
  return new Promise((resolve, reject) => {
    socket.once('connect', () => resolve(socket));
    socket.once('error', reject);
  });
}

/** What the ledger says that is on these chains; one function for each machine, in the order of striping. */
export async function stripedLedgerAt(
  images: DiskImages,
  machines: readonly ((diskId: 'system' | 'data') => readonly ImageFile[])[],
): Promise<LedgerCheck> {
  await using stack = new AsyncDisposableStack();
  const disks = [];
  for (const chainOf of machines) {
    for (const { disk, partition } of LEDGER_AREAS) {
      const reader = stack.use(await images.open(chainOf(disk)));
      disks.push({ ...areaOf(reader), partition });
    }
  }
  return await checkLedgerDisks(disks);
}
