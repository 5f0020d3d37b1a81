import { systemClock } from '../src/lib/clock.ts';
import {
  type RetentionCandidate,
  type RetentionPolicy,
  retentionOf,
  Schedule,
  type ScheduleState,
  Zones,
} from '../src/recovery-point/index.ts';
import { atMost } from './support/figures.ts';
import { printHead } from './support/head.ts';

/**
 * How long does it take to decide for 10,000 machines what is due next, and which of their 100 points each stay? Every machine
 * has its own plan (an interval, a fixed time in one of some zones, a blackout) and its own points; nothing is shared but the zones.
 */

const MACHINES = 10_000;
const POINTS = 100;
const TARGET_S = 1;
const ZONES = ['Europe/Berlin', 'America/New_York', 'Asia/Tokyo', 'UTC'];
const NOW_MS = Date.UTC(2026, 2, 28, 20, 0, 0);

const RETENTION: RetentionPolicy = {
  types: { crash: 20, app: 8 },
  calendar: { zone: 'Europe/Berlin', hourly: 12, daily: 7, weekly: 4, monthly: 12 },
  maximumAgeMs: 400 * 86_400_000,
};

export async function run(): Promise<void> {
  const zones = new Zones();
  const now = { wallMs: NOW_MS, monotonicMs: 0 };
  let schedules: Schedule[] = [];
  let states: ScheduleState[] = [];
  const beginS = seconds(() => {
    schedules = Array.from({ length: MACHINES }, (_, number) => scheduleOf(number, zones));
    states = schedules.map((schedule) => schedule.begin(now, NOW_MS - 5000));
  });
  const situation = { hasCopy: true, isAcknowledged: true, lastTransfer: undefined };
  const pointsOf = Array.from({ length: MACHINES }, (_, number) => points(number));

  let due = 0;
  const planS = seconds(() => {
    const later = { wallMs: NOW_MS + 10_000, monotonicMs: 10_000 };
    schedules.forEach((schedule, number) => {
      const state = schedule.look(states[number]!, later);
      if (schedule.next(state, later, situation)) due += 1;
    });
  });
  let stays = 0;
  const keepS = seconds(() => {
    for (const candidates of pointsOf) {
      for (const { reasons } of retentionOf(candidates, RETENTION, zones)) if (reasons.length > 0) stays += 1;
    }
  });
  console.table([
    { what: 'reading the plans, once at the start (informs)', seconds: beginS.toFixed(3), found: MACHINES },
    { what: `next copy of ${MACHINES} machines`, seconds: planS.toFixed(3), found: due },
    { what: `retention of ${MACHINES} × ${POINTS} points`, seconds: keepS.toFixed(3), found: stays },
  ]);
  console.log(`both together: ${atMost(planS + keepS, TARGET_S)} s`);
}

function scheduleOf(number: number, zones: Zones): Schedule {
  const zone = ZONES[number % ZONES.length]!;
  const cron = `${number % 60} ${number % 24} * * *`;
  return Schedule.of(
    {
      schedules: [
        { copyType: 'crash', triggers: [{ kind: 'interval', everyMs: 30_000 }] },
        { copyType: 'app', triggers: [{ kind: 'fixed', cron, zone }] },
      ],
      blackouts: [{ days: ['mon', 'tue'], from: '08:00', to: '18:00', zone }],
    },
    zones,
  );
}

/** Half an hour apart, the youngest a minute old. */
function points(number: number): RetentionCandidate[] {
  return Array.from({ length: POINTS }, (_, index) => {
    const cutAtMs = NOW_MS - 60_000 - (POINTS - index) * 1_800_000 + number;
    return {
      ...{ pointId: `${number}-${index}`, sequence: index + 1, cutAtMs, cutAtHereMs: cutAtMs + 3 },
      ...{ copyType: index % 5 === 0 ? 'app' : 'crash', degraded: false },
      ...{ proven: index % 40 === 0, inUse: false },
    };
  });
}

function seconds(work: () => void): number {
  const begin = systemClock.monotonicMs();
  work();
  return (systemClock.monotonicMs() - begin) / 1000;
}

if (import.meta.main) {
  await printHead();
  await run();
}
