import type { AddTargetRequest, ChangeTargetRequest, ForwardReplicaRequest } from '../../api/index.ts';
import { DEFAULT_RETENTION, type RetentionPolicy } from '../../recovery-point/index.ts';
import type { ForwardPolicy, Protection, TargetChange, TargetPolicy } from '../../replication/index.ts';

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

/** What is not said is as before; at first as here, without a limit. */
export function forwardIn(
  siteId: string,
  request: ForwardReplicaRequest,
  before: ForwardPolicy | undefined,
  retentionHere: RetentionPolicy,
): ForwardPolicy {
  const start: ForwardPolicy = before ?? { siteId, retention: retentionHere, compression: true };
  const copyTypes = request.copyTypes === undefined ? start.copyTypes : (request.copyTypes ?? undefined);
  const { bytesPerSecond, spacingMs, copyTypes: _, ...policy } = { ...start, ...targetChangeIn(request) };
  return {
    ...policy,
    ...(bytesPerSecond === undefined ? {} : { bytesPerSecond }),
    ...(spacingMs === undefined ? {} : { spacingMs }),
    ...(copyTypes ? { copyTypes: [...copyTypes] } : {}),
  };
}
