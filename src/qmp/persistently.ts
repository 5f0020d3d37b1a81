import { type Clock, sleep } from '../lib/clock.ts';
import { isFailure } from '../lib/errors.ts';
import { QmpClient } from './qmp-client.ts';

/** How long a machine whose monitor is taken, or that does not answer, is tried again. */
const TRY_LIMIT_MS = 60_000;
/** How long a socket may be gone. A machine whose socket is gone has ended. */
const GONE_LIMIT_MS = 5_000;
const AGAIN_MS = 100;

/**
 * Does something to a machine over connections of its own until it has been done once without a failure. Resolves then, or when the
 * machine has gone or will not be talked to for too long. `act` may be begun again after any part of it.
 */
export async function persistently(
  path: string,
  clock: Clock,
  act: (client: QmpClient) => Promise<void>,
): Promise<void> {
  const beginMs = clock.monotonicMs();
  let goneSinceMs: number | undefined;
  for (;;) {
    try {
      await using client = await QmpClient.connect({ path, clock });
      goneSinceMs = undefined;
      await act(client);
      return;
    } catch (error) {
      if (!isFailure(error)) throw error;
      const nowMs = clock.monotonicMs();
      if (isFailure(error, 'QMP_UNREACHABLE')) goneSinceMs ??= nowMs;
      const isGone = goneSinceMs !== undefined && nowMs - goneSinceMs > GONE_LIMIT_MS;
      if (isGone || nowMs - beginMs > TRY_LIMIT_MS) return;
      await sleep(clock, AGAIN_MS);
    }
  }
}
