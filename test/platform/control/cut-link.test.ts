/** Two served sites and a link between them that is cut and garbles what it carries; over TLS, as between two hosts. */
import assert from 'node:assert/strict';
import { truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { it } from 'node:test';
import { systemClock } from '../../../src/lib/clock.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import { systemRandom } from '../../../src/lib/random.ts';
import { retrying } from '../../../src/lib/retry.ts';
import { SimRandom } from '../../simulation/sim-random.ts';
import type { TestApi } from '../../support/api.ts';
import { FaultProxy } from '../../support/fault-proxy.ts';
import { BOX, machineThatIsOff, pairedSites, resultOf } from '../../support/paired-sites.ts';
import { sized, sizedLimitMs } from '../../support/size.ts';

const MIB = 1024 * 1024;
const DISK_BYTES = 64 * MIB;
const DELTA_BYTES = 24 * MIB;
/** What may be under way when a connection is lost: sent, and not durable at the other side. */
const WINDOW_BYTES = 8 * MIB;
/** Calls, heartbeats and handshakes beside the deltas. */
const TALK_BYTES = 256 * 1024;
const FAULTS_A_ROUND = 3;

async function writeDelta(api: TestApi, random: SimRandom, round: number): Promise<void> {
  const { protected: machine } = await api.call('vm.show', BOX);
  const { path, format } = machine!.disks[0]!.chain.at(-1)!;
  const atMib = random.below((DISK_BYTES - DELTA_BYTES) / MIB);
  const write = ['-f', format, '-c', `write -q -P ${round} ${atMib}M ${DELTA_BYTES / MIB}M`, path];
  // The merge that follows an acknowledgement holds the lock of the file for a moment.
  const backoff = { firstMs: 50, maximumMs: 200, triesMax: 100 };
  await retrying({ clock: systemClock, random: systemRandom }, backoff, () => runCommand('qemu-io', write));
}

/** What comes back over a connection: its handshake, and an acknowledgement. */
const ANSWER_BYTES = 4096;

interface Fault {
  readonly way: 'up' | 'down';
  readonly kind: 'cutAfterBytes' | 'flipByteAt';
  /** Of its connection. */
  readonly at: number;
}

/**
 * Has connections of the link fail, one after the other. The first one late, when most of the delta is over: who then began anew
 * would send far more than was under way. `end` makes the link whole and returns what has happened.
 */
function faultyLinks(proxy: FaultProxy, random: SimRandom, crossed: () => number) {
  const faults: Fault[] = [];
  let next: Fault | undefined;
  const heal = () => {
    for (const way of [proxy.up, proxy.down]) {
      delete way.cutAfterBytes;
      delete way.flipByteAt;
    }
    next = undefined;
  };
  const draw = (): Fault => {
    const kind = random.below(3) === 0 ? 'flipByteAt' : 'cutAfterBytes';
    if (faults.length === 0)
      return { way: 'up', kind, at: random.between(DELTA_BYTES / 2, DELTA_BYTES - MIB) };
    if (random.below(2) === 0) return { way: 'down', kind, at: random.below(ANSWER_BYTES) };
    return { way: 'up', kind, at: random.below(Math.max(MIB, DELTA_BYTES - crossed())) };
  };
  const arm = () => {
    heal();
    if (faults.length === FAULTS_A_ROUND) return;
    next = draw();
    proxy[next.way][next.kind] = next.at;
  };
  proxy.onFault = () => {
    if (next) faults.push(next);
    arm();
  };
  arm();
  return {
    end(): readonly Fault[] {
      proxy.onFault = () => undefined;
      heal();
      return faults;
    },
  };
}

it('S0.10 after every cut and every flipped bit of the link a copy goes on where it was durable; what crosses in all is the delta and what was under way', {
  timeout: sizedLimitMs({ normal: 180_000, full: 1_800_000 }),
}, async (context) => {
  const rounds = sized({ what: 'S0.10: copies over a link that is cut three times', normal: 2, full: 40 });
  const seed = systemRandom.bytes(4).readUInt32LE();
  const random = new SimRandom(seed, 0);
  context.diagnostic(`seed ${seed}`);
  const { t, directory, away, homeApi, awayApi } = await pairedSites(context);
  const proxy = await FaultProxy.start(t, away.served.peerAddress);
  await homeApi.call('peer.address', { params: { peer: 'away' }, body: proxy.address });
  const path = join(directory, 'disk.raw');
  await writeFile(path, '');
  await truncate(path, DISK_BYTES);
  await homeApi.call('vm.add', { body: machineThatIsOff({ path, sizeBytes: DISK_BYTES, format: 'raw' }) });
  const body = { every: {}, retention: { types: { crash: 100, app: 0 } }, compression: false };
  await homeApi.call('vm.protect', { ...BOX, body });

  for (let round = 1; round <= rounds; round++) {
    await writeDelta(homeApi, random, round);
    const beforeBytes = proxy.upBytes;
    const crossed = () => proxy.upBytes - beforeBytes;
    const links = faultyLinks(proxy, random, crossed);
    const created = await homeApi.call('point.create', { ...BOX, body: { type: 'crash', wait: true } });
    assert.ok('job' in created);
    await resultOf(homeApi, created.job);
    const faults = links.end();
    const { changedBytes, receivedBytes } = (await awayApi.call('point.list', BOX)).at(-1)!;
    const said = faults.map(({ way, kind, at }) => `${way} ${kind} ${at}`).join(', ');
    context.diagnostic(
      `round ${round}: ${said}; ${crossed()} bytes crossed, of a delta of ${changedBytes}; the last upload had ${receivedBytes}`,
    );
    assert.ok(faults.length > 0 && changedBytes! >= DELTA_BYTES);
    const again = faults.reduce(
      (sum, { way, at }) => sum + (way === 'up' ? Math.min(at, WINDOW_BYTES) : WINDOW_BYTES),
      0,
    );
    const limit = changedBytes! * 1.02 + again + TALK_BYTES;
    assert.ok(crossed() <= limit, `${crossed()} bytes, of at most ${limit}`);
  }

  const points = await awayApi.call('point.list', BOX);
  assert.equal(points.length, rounds);
  for (const { pointId } of points) {
    const params = { machine: 'box', point: pointId };
    await resultOf(awayApi, await awayApi.call('point.verify', { params }));
  }
});
