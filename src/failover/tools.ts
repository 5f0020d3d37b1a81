import type { Hypervisor } from '../hypervisor/index.ts';
import type { Clock } from '../lib/clock.ts';
import type { FileSystem } from '../lib/files.ts';
import type { Log } from '../lib/log.ts';
import type { Random } from '../lib/random.ts';
import type { Signer } from '../peer/index.ts';
import type { Replica } from '../replica/index.ts';
import type { CpuGroups } from './cpu-groups.ts';
import type { BranchNetworks } from './network.ts';
import type { RunningMachine } from './nic-checks.ts';
import type { SitePrograms } from './site-programs.ts';
import type { TestRules } from './test-guard.ts';

export interface FailoverTools {
  readonly files: FileSystem;
  readonly hypervisor: Hypervisor;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** The identity of this site. */
  readonly siteId: string;
  /** Signs boot proofs in the name of this site. */
  readonly signer: Signer;
  /** What tests may take together; asked anew each time. */
  readonly testRules: () => TestRules;
  /** Space that is left where branches lie. */
  readonly freeBytes: () => Promise<number>;
  readonly cpuGroups: Pick<CpuGroups, 'check' | 'make' | 'enter' | 'remove'>;
  readonly networks: BranchNetworks;
  /** What the operator lets this host run around machines. */
  readonly programs: Pick<SitePrograms, 'run'>;
  /** What runs here and is no branch, with the addresses of its NICs. */
  readonly machinesHere: () => readonly RunningMachine[];
  /** It is durable that this site holds the machine, and nothing of it runs yet. Never rejects. */
  readonly onHeld?: (replica: Replica) => Promise<void>;
  /** Below it lie sockets and logs of branches that run, each in a directory of its own; at most 70 bytes long. */
  readonly runDirectory: string;
}
