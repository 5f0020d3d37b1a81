import type { DiskImages } from '../hypervisor/index.ts';
import type { Clock } from '../lib/clock.ts';
import type { FileSystem } from '../lib/files.ts';
import type { Log } from '../lib/log.ts';
import type { SignedStatement, Zones } from '../recovery-point/index.ts';

/** What the store needs of the world. */
export interface ReplicaTools {
  readonly files: FileSystem;
  readonly images: DiskImages;
  readonly clock: Clock;
  readonly log: Log;
  readonly zones: Zones;
  /** Whether the signature is by the key that `signed.keyId` names and that this site trusts for the source site. */
  readonly isSignedBySource: (sourceSiteId: string, signed: SignedStatement) => boolean;
}
