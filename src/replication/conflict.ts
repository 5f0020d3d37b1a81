import type { OfferConflict } from '../replica/index.ts';
import { replicationFailure } from './errors.ts';
import type { SessionConflict } from './session-plan.ts';

/**
 * REPLICATION_CONFLICT for a person: what does not fit, by its short name and in words, and the way out of this very
 * conflict where there is one. The evidence itself stands in the failure's context.
 */
export function conflictFailure(
  machine: string,
  evidence: SessionConflict | OfferConflict,
  isForwarded = false,
): Error {
  const { said, wayOut } = isForwarded
    ? { ...explained(machine, evidence), wayOut: wayOutOfForwarding(machine) }
    : explained(machine, evidence);
  return replicationFailure('REPLICATION_CONFLICT', `${machine}: ${evidence.why}: ${said}`, {
    context: { machine, ...evidence },
    ...(wayOut === undefined ? {} : { hint: wayOut }),
  });
}

function explained(
  machine: string,
  evidence: SessionConflict | OfferConflict,
): { readonly said: string; readonly wayOut?: string } {
  const seedAnew = `\`warmsite vm unprotect ${machine}\` and \`warmsite vm protect ${machine}\` send it from the beginning`;
  switch (evidence.why) {
    case 'fenced':
      return fenced(evidence.ourEpoch, evidence.theirEpoch);
    case 'epoch':
      return fenced(evidence.offered, evidence.held);
    case 'target-behind':
      if (evidence.newest === null) {
        return {
          said: `the other site has acknowledged point ${evidence.acknowledged} and holds no point now`,
          wayOut: `Bring its data directory back if it is only misplaced; if it is lost, ${seedAnew}.`,
        };
      }
      return {
        said: `the other site has acknowledged point ${evidence.acknowledged} and holds nothing younger than ${evidence.newest} now`,
      };
    case 'unknown-point':
      return {
        said: `the newest point of the other site, ${evidence.newest}, was not made by this protection`,
        wayOut: `Its points stay usable there. To replicate from the beginning, under a new id: \`warmsite vm unprotect ${machine}\`, \`warmsite vm remove ${machine}\`, then add and protect it again.`,
      };
    case 'parent':
      return {
        said: `the copy lies upon point ${evidence.offered ?? 'none'}, and the newest of the other site is ${evidence.newest ?? 'none'}`,
      };
    case 'sequence':
      return {
        said: `the copy has number ${evidence.offered}, and the other site expects ${evidence.expected}`,
      };
    case 'disks':
      return {
        said: evidence.detail,
        wayOut:
          'If disks came or went here, the other site may run a version that keeps to the disks of the first copy: upgrade it; nothing is lost meanwhile.',
      };
    case 'seed':
      return {
        said: 'the other site awaits the base of the machine, and cannot prove a copy that does not come in whole blocks',
      };
  }
}

function wayOutOfForwarding(machine: string): string {
  return `What the other site holds stays usable there. To forward nothing more: \`warmsite replica forward ${machine} --to SITE --stop\`. To forward everything anew, stop, remove the replica at the other site (\`warmsite replica remove ${machine}\`), and begin again.`;
}

function fenced(ourEpoch: number, theirEpoch: number): { readonly said: string; readonly wayOut?: string } {
  const said = `the other site is in epoch ${theirEpoch} of this machine, this one in ${ourEpoch}`;
  if (theirEpoch < ourEpoch) return { said };
  return {
    said,
    wayOut:
      'The machine was brought up at the other site. Stop it here, lest both take writes; what it has written since stays in its disks.',
  };
}
