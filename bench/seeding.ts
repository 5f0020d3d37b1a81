/**
 * How long does it take to seed a disk of 2 GiB (half of it compressible, a quarter random, a quarter zero), the whole
 * path with TLS, read-back verification and fsync, against `nbdcopy --flush` from one qemu-nbd into a fresh qcow2
 * behind another, plain and over TLS, in the same run? Prints medians, ratios and the peak memory of our processes.
 */
import { fork } from 'node:child_process';
import { mkdir, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { systemClock } from '../src/lib/clock.ts';
import { nodeFiles } from '../src/lib/node-files.ts';
import { exitOf, runCommand } from '../src/lib/processes.ts';
import { systemRandom } from '../src/lib/random.ts';
import { createIdentity, PeerDirectory, saveIdentity } from '../src/peer/index.ts';
import { temporaryDirectory } from '../test/support/temporary.ts';
import { copyThroughNbd, makeTlsCredentials } from './seeding/nbdcopy.ts';
import { atLeast, atMost, median } from './support/figures.ts';
import { printHead } from './support/head.ts';
import { withScope } from './support/scope.ts';

const GIB = 1024 ** 3;
const ROUNDS = 3;
/** The speed of ours against that of nbdcopy. */
const SPEED_TARGETS = { plain: 1, tls: 2 } as const;
const MEMORY_TARGET_MIB = 250;
const GBIT_BYTES_PER_SECOND = 125_000_000;

export async function run(): Promise<void> {
  await withScope(async (scope) => {
    const directory = await temporaryDirectory(scope);
    const image = await makeImage(directory, 2 * GIB);
    const tls = await makeTlsCredentials(directory);
    await warmMemory();
    const rows: Record<string, number[]> = { plain: [], tls: [], ours: [], gbit: [], gbitZstd: [] };
    let peaks = { sender: 0, receiver: 0 };
    for (let round = 0; round < ROUNDS; round++) {
      rows.plain!.push(await copyThroughNbd(directory, image, undefined));
      rows.tls!.push(await copyThroughNbd(directory, image, tls));
      const ours = await seed(directory, image, 2 * GIB, { compress: false, rate: 0 });
      rows.ours!.push(ours.seconds);
      peaks = {
        sender: Math.max(peaks.sender, ours.senderMiB),
        receiver: Math.max(peaks.receiver, ours.receiverMiB),
      };
    }
    const plain = median(rows.plain!);
    const overTls = median(rows.tls!);
    const ours = median(rows.ours!);
    console.log(`nbdcopy plain                 ${plain.toFixed(2)} s`);
    console.log(`nbdcopy over TLS              ${overTls.toFixed(2)} s`);
    console.log(`warmsite (TLS, verify, fsync) ${ours.toFixed(2)} s`);
    console.log(`speed against plain nbdcopy   ${atLeast(plain / ours, SPEED_TARGETS.plain, 2)}`);
    console.log(`speed against nbdcopy on TLS  ${atLeast(overTls / ours, SPEED_TARGETS.tls, 2)}`);
    console.log(`peak memory, MiB: sender ${atMost(peaks.sender, MEMORY_TARGET_MIB, 0)}`);
    console.log(`                receiver ${atMost(peaks.receiver, MEMORY_TARGET_MIB, 0)}`);
    for (const compress of [false, true]) {
      const limited = await seed(directory, image, 2 * GIB, { compress, rate: GBIT_BYTES_PER_SECOND });
      const wire = (limited.wireBytes / 1e6).toFixed(0);
      console.log(
        `1 Gbit/s, ${compress ? 'zstd' : 'none'}: ${limited.seconds.toFixed(2)} s, ${wire} MB on the wire`,
      );
    }
    const sparse = await makeImage(directory, 16 * GIB, 2 * GIB);
    const large = await seed(directory, sparse, 16 * GIB, { compress: false, rate: 0 });
    console.log(
      `16 GiB sparse: ${large.seconds.toFixed(2)} s, sender ${large.senderMiB} MiB, receiver ${large.receiverMiB} MiB`,
    );
  });
}

/** A qcow2 image of which `filledBytes` hold data in the bench's mixture, spread evenly in runs of 16 MiB. */
async function makeImage(directory: string, sizeBytes: number, filledBytes = sizeBytes): Promise<string> {
  const raw = join(directory, 'source.raw');
  const path = join(directory, `source-${sizeBytes}.qcow2`);
  const handle = await open(raw, 'w');
  const run = 16 * 1024 * 1024;
  const random = Buffer.alloc(run);
  const text = Buffer.alloc(run);
  for (let at = 0; at < run; at += 16)
    text.write(`entry ${(at * 2654435761) % 1e8} `.slice(0, 16), at, 'latin1');
  const step = run * (sizeBytes / filledBytes);
  for (let index = 0; index * step < sizeBytes; index++) {
    const kind = index % 4;
    if (kind === 3) continue; // a quarter is zero
    if (kind === 2) systemRandom.bytes(run).copy(random);
    await handle.write(kind === 2 ? random : text, 0, run, index * step);
  }
  await handle.truncate(sizeBytes);
  await handle.close();
  await runCommand('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', raw, path]);
  await rm(raw);
  return path;
}

/** Fresh pages of the host vary tenfold in cost: touch as much memory as a round needs, once, before timing. */
async function warmMemory(): Promise<void> {
  for (let i = 0; i < 6; i++) Buffer.alloc(GIB, i + 1);
}

async function seed(
  directory: string,
  image: string,
  sizeBytes: number,
  o: { compress: boolean; rate: number },
) {
  const alpha = await makeSite(directory, 'alpha');
  const beta = await makeSite(directory, 'beta');
  for (const [own, other] of [
    [alpha, beta],
    [beta, alpha],
  ] as const) {
    const { siteId, name, caCertificate, signingKey } = other.identity;
    const peers = await PeerDirectory.load(nodeFiles, own.dataDirectory);
    await peers.add({
      siteId,
      name,
      caCertificate,
      signingKey,
      address: { host: '127.0.0.1', port: 1 },
      pairedAtMs: 0,
    });
  }
  const receiver = fork(join(import.meta.dirname, 'seeding', 'receiver.ts'), [beta.dataDirectory]);
  try {
    const { port } = await message<{ port: number }>(receiver);
    const published = message<{ peakMiB: number }>(receiver);
    const sender = fork(join(import.meta.dirname, 'seeding', 'sender.ts'), [
      ...[
        alpha.dataDirectory,
        String(port),
        image,
        String(sizeBytes),
        o.compress ? 'zstd' : 'none',
        String(o.rate),
      ],
    ]);
    const sent = await message<{ seconds: number; wireBytes: number; peakMiB: number; cpu: NodeJS.CpuUsage }>(
      sender,
    );
    await exitOf(sender);
    const { peakMiB } = await published;
    await runCommand('sh', [
      '-c',
      `qemu-img check -q -f qcow2 ${beta.dataDirectory}/replicas/*/disks/disk0/*.qcow2`,
    ]);
    return { ...sent, senderMiB: sent.peakMiB, receiverMiB: peakMiB };
  } finally {
    receiver.disconnect();
    await exitOf(receiver);
    for (const { dataDirectory } of [alpha, beta]) await rm(dataDirectory, { recursive: true, force: true });
  }
}

async function makeSite(directory: string, name: string) {
  const dataDirectory = join(directory, name);
  await mkdir(dataDirectory, { mode: 0o700 });
  const identity = await createIdentity({ name, clock: systemClock, random: systemRandom });
  await saveIdentity(nodeFiles, dataDirectory, identity);
  return { dataDirectory, identity };
}

function message<T>(child: ReturnType<typeof fork>): Promise<T> {
  return new Promise((resolve, reject) => {
    child.once('message', (value) => resolve(value as T));
    child.once('exit', (code) => reject(new Error(`a process of the bench ended with ${code}`)));
  });
}

if (import.meta.main) {
  await printHead();
  await run();
}
