import type { ProtectRequest } from '../../api/index.ts';
import { DEFAULT_RETENTION } from '../../recovery-point/index.ts';
import type { Protection } from '../../replication/index.ts';
import { schedulesIn, schedulesOf } from './schedule-requests.ts';

const FREEZE_LIMIT_MS = 5_000;
const DEFAULT_EVERY = { crash: 60_000 } as const;

/** How a machine is protected that a person wants to be replicated to `targetSiteId`; what is not said has its default. */
export function protectionIn(targetSiteId: string, request: ProtectRequest): Protection {
  const { copyTypes, blackouts, limitWindows, bytesPerSecond, spacingMs } = request;
  return {
    targetSiteId,
    schedules: schedulesIn(request) ?? schedulesOf(DEFAULT_EVERY),
    ...(copyTypes ? { copyTypes } : {}),
    ...(blackouts ? { blackouts } : {}),
    retention: request.retention ?? DEFAULT_RETENTION,
    freezeLimitMs: request.freezeLimitMs ?? FREEZE_LIMIT_MS,
    ...(bytesPerSecond === undefined ? {} : { bytesPerSecond }),
    ...(limitWindows ? { limitWindows } : {}),
    compression: request.compression ?? true,
    ...(spacingMs === undefined ? {} : { spacingMs }),
  };
}
