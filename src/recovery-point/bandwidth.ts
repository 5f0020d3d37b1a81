import Type from 'typebox';
import { isWithin, Window } from './windows.ts';
import type { Zones } from './zones.ts';

/** Another limit for some hours of the week. */
export const LimitWindow = Type.Object({
  window: Window,
  /** null: no limit in these hours. */
  bytesPerSecond: Type.Union([Type.Integer({ minimum: 1024 }), Type.Null()]),
});
export type LimitWindow = Type.Static<typeof LimitWindow>;

/** How fast a machine's deltas may be sent. */
export interface Bandwidth {
  /** At all other hours; absent: as fast as it goes. */
  readonly bytesPerSecond?: number | undefined;
  readonly limitWindows?: readonly LimitWindow[] | undefined;
}

/** Bytes a second at an instant of the wall clock; undefined: no limit. The first window that holds it counts. Pure. */
export function limitAt(
  { bytesPerSecond, limitWindows = [] }: Bandwidth,
  wallMs: number,
  zones: Zones,
): number | undefined {
  const hours = limitWindows.find(({ window }) => isWithin(window, wallMs, zones));
  return hours ? (hours.bytesPerSecond ?? undefined) : bytesPerSecond;
}
