import type { MachineChanges, PlanDocument, ProbeRequest } from '../api/index.ts';
import { ownOf } from '../lib/own.ts';

/** What is different about a machine at a site, as the plan says; pure. In a rehearsal it may have other memory and CPUs. */
export function changesAt(
  { machines }: PlanDocument,
  machine: string,
  siteName: string,
  isTest: boolean,
): MachineChanges | undefined {
  const at = ownOf(machines[machine]?.at ?? {}, siteName);
  if (!at) return undefined;
  const { inTest, ...changes } = at;
  return isTest ? { ...changes, ...inTest } : changes;
}

/** Without addresses of NICs that a machine does not have: `findingsAt` names them, and on the day itself they keep nothing from coming up. Pure. */
export function forNicsOf(
  changes: MachineChanges,
  nics: readonly { readonly nicId: string }[],
): MachineChanges {
  const { addresses, ...others } = changes;
  const known = Object.entries(addresses ?? {}).filter(([nicId]) => nics.some((nic) => nic.nicId === nicId));
  return known.length === 0 ? others : { ...others, addresses: Object.fromEntries(known) };
}

const PLACEHOLDER = /\{([a-z0-9][a-z0-9-]{0,23})\}/g;

/** The gates of a machine as they are asked at a site: `{NIC}` in a host or a URL is the address that the plan gives the NIC there. Pure. */
export function gatesAt(
  plan: PlanDocument,
  machine: string,
  siteName: string,
): { readonly gates: ProbeRequest[] | undefined; readonly unknownNics: readonly string[] } {
  const addresses = ownOf(plan.machines[machine]?.at ?? {}, siteName)?.addresses ?? {};
  const unknownNics: string[] = [];
  const filled = (text: string) =>
    text.replace(PLACEHOLDER, (whole, nicId: string) => {
      const address = ownOf(addresses, nicId)?.addresses[0]?.split('/')[0];
      if (address === undefined) unknownNics.push(nicId);
      return address ?? whole;
    });
  const gates = plan.machines[machine]?.gates?.map((gate): ProbeRequest => {
    if (gate.kind === 'tcp') return { ...gate, host: filled(gate.host) };
    return gate.kind === 'http' ? { ...gate, url: filled(gate.url) } : gate;
  });
  return { gates, unknownNics };
}

/** A gate with an address in the place of each `{NIC}`, to be looked at by itself; pure. */
export function gateAnywhere(gate: ProbeRequest): ProbeRequest {
  const filled = (text: string) => text.replace(PLACEHOLDER, ANY_ADDRESS);
  if (gate.kind === 'tcp') return { ...gate, host: filled(gate.host) };
  return gate.kind === 'http' ? { ...gate, url: filled(gate.url) } : gate;
}

/** Of those that documents use (RFC 5737). */
const ANY_ADDRESS = '192.0.2.1';
