/** Copies of a running guest by its policy, by the clock of the host: which ones there are in the end, and when they were made. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { LedgerPort } from '../../../lab/index.ts';
import type { PointView, SiteEvent } from '../../../src/api/index.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { FaultProxy } from '../../support/fault-proxy.ts';
import { inGuest } from '../../support/lab-sites.ts';
import { BOX, pair, pairedSites, someonesMachine } from '../../support/paired-sites.ts';
import { TestSite } from '../../support/served-sites.ts';
import { sized, sizedLimitMs } from '../../support/size.ts';

const MIB = 1024 * 1024;
/** More than the guest writes by itself between two copies. */
const WRITTEN_BYTES = 16 * MIB;
/** What a copy may come late by, on a busy host. */
const LATE_MS = 2_000;
/** An interval counts from when a copy was due; with the applications a busy guest takes its time until it is cut. */
const FREEZE_MS = 5_000;
/** A guest without KVM may be slow, but a target that does not answer must not stop its writes. */
const LEDGER_GAP_MS = 5_000;

type Why = 'first' | 'interval' | 'event';
type Expected = readonly [type: string, why: Why];

it('S0.8 S0.29 a copy every 30 s, one with the applications every 5 min, a call and so many bytes written give exactly these points, beside a target that does not answer', {
  timeout: sizedLimitMs({ normal: 180_000, full: 900_000 }),
}, async (context) => {
  const crashMs =
    1000 * sized({ what: 'S0.8: seconds between crash-consistent copies', normal: 6, full: 30 });
  const appMs = 1000 * sized({ what: 'S0.8: seconds between application-consistent', normal: 30, full: 300 });
  const { t, directory, home, away, homeApi, awayApi } = await pairedSites(context);
  const hole = await TestSite.init(t, directory, 'hole');
  await pair(homeApi, await hole.serve());
  const link = await FaultProxy.start(t, hole.served.peerAddress);
  await homeApi.call('peer.address', { params: { peer: 'hole' }, body: link.address });
  link.stall();
  const { lab, attach } = await someonesMachine(t, directory);
  await homeApi.call('vm.add', { body: { attach } });
  const ledger = await LedgerPort.connect({ path: lab.ledgerPath, clock: systemClock });
  t.after(() => ledger.close());
  const { seq } = await ledger.next();
  let seenMs = systemClock.monotonicMs();
  let gapMs = 0;
  ledger.subscribe(({ hostMonotonicMs }) => {
    gapMs = Math.max(gapMs, hostMonotonicMs - seenMs);
    seenMs = hostMonotonicMs;
  });

  const nextCut = () => home.next((event: SiteEvent) => event.event === 'point' && event.change === 'cut');
  const protecting = homeApi.call('vm.protect', {
    ...BOX,
    body: {
      target: 'away',
      schedules: [
        {
          copyType: 'crash',
          triggers: [
            { kind: 'interval', everyMs: crashMs },
            { kind: 'written', bytes: WRITTEN_BYTES },
          ],
        },
        { copyType: 'app', triggers: [{ kind: 'interval', everyMs: appMs }] },
      ],
      retention: { types: { crash: 40, app: 10 } },
    },
  });
  await Promise.all([protecting, nextCut()]);
  await homeApi.call('target.add', { ...BOX, body: { target: 'hole' } });
  const { trigger, token } = await homeApi.call('trigger.create', { ...BOX, body: { copyType: 'app' } });
  const expected: Expected[] = [['app', 'first']];
  const comes = async (copies: number, type: string, why: Why) => {
    for (let copy = 0; copy < copies; copy++) {
      await nextCut();
      expected.push([type, why]);
    }
  };

  await comes(2, 'crash', 'interval');
  const called = comes(1, 'app', 'event');
  const path = `/v1/triggers/${trigger.triggerId}`;
  assert.equal((await homeApi.raw({ method: 'POST', path, token, body: '{}' })).status, 200);
  await called;
  await comes(1, 'crash', 'interval');
  const written = comes(1, 'crash', 'event');
  await inGuest(lab.agentPath, 'dd if=/dev/zero of=/data/bulk bs=1M count=20 conv=fsync 2> /dev/null');
  await written;
  await comes(appMs / crashMs - 2, 'crash', 'interval');
  await comes(1, 'app', 'interval');

  const points = await away.until(async () => {
    const all = await awayApi.call('point.list', BOX);
    return all.length >= expected.length ? all.slice(0, expected.length) : undefined;
  });
  const startMs = points[0]!.cutAtMs;
  context.diagnostic(
    points.map(({ copyType, cutAtMs }) => `${copyType} ${(cutAtMs - startMs) / 1000}`).join(', '),
  );
  assert.deepEqual(
    points.map(({ copyType, consistency }) => [copyType, consistency]),
    expected.map(([type]) => [type, type === 'app' ? 'application' : 'crash']),
  );
  const isApp = ({ copyType }: PointView) => copyType === 'app';
  for (const [index, [type, why]] of expected.entries()) {
    if (why !== 'interval') continue;
    // A copy with the applications counts as one without.
    const since = points.slice(0, index).findLast((point) => type === 'crash' || isApp(point))!;
    const lateMs = points[index]!.cutAtMs - since.cutAtMs - (type === 'app' ? appMs : crashMs);
    const tolerance = [points[index]!, since].some(isApp) ? FREEZE_MS : LATE_MS;
    assert.ok(Math.abs(lateMs) < tolerance, `point ${index + 1} came ${lateMs} ms late`);
  }

  const { protected: machine } = await homeApi.call('vm.show', BOX);
  const reached = new Map(machine!.replication!.targets.map((target) => [target.name, target.acknowledged]));
  assert.equal(reached.get('hole'), undefined, 'nothing has come through to the other one');
  const { seq: last } = await ledger.next();
  context.diagnostic(
    `the ledger wrote ${last - seq} records, at most ${Math.round(gapMs)} ms apart, beside a target that does not answer`,
  );
  assert.ok(last > seq && gapMs < LEDGER_GAP_MS, `${gapMs} ms`);
});
