import type { AddTargetRequest, ChangeTargetRequest } from '../api/index.ts';
import { DEFAULT_RETENTION } from '../recovery-point/index.ts';
import type { Protection, TargetChange, TargetPolicy } from '../replication/index.ts';

/** What requests ask for of a target; pure. */

/** What is not said is as for the first target, but for its limits. */
export function targetIn(siteId: string, request: AddTargetRequest, first: Protection | null): TargetPolicy {
  const { retention, compression, bytesPerSecond, limitWindows, spacingMs } = request;
  return {
    siteId,
    retention: retention ?? first?.retention ?? DEFAULT_RETENTION,
    compression: compression ?? first?.compression ?? true,
    ...(bytesPerSecond === undefined ? {} : { bytesPerSecond }),
    ...(limitWindows ? { limitWindows } : {}),
    ...(spacingMs === undefined ? {} : { spacingMs }),
  };
}

export function targetChangeIn(request: ChangeTargetRequest): TargetChange {
  const { retention, compression, bytesPerSecond, limitWindows, spacingMs } = request;
  return {
    ...(retention ? { retention } : {}),
    ...(compression === undefined ? {} : { compression }),
    ...(bytesPerSecond === undefined ? {} : { bytesPerSecond: bytesPerSecond ?? undefined }),
    ...(limitWindows ? { limitWindows } : {}),
    ...(spacingMs === undefined ? {} : { spacingMs: spacingMs ?? undefined }),
  };
}
