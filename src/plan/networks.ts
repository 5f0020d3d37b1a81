import type { NicConnection, PlanDocument } from '../api/index.ts';
import { ownOf } from '../lib/own.ts';

/** What is known of a NIC of a machine. */
export interface PlannedNic {
  readonly nicId: string;
  /** Name of its network at the protected site. */
  readonly network: string;
}

/**
 * What the NICs of a machine are connected to at a site, by NIC id: what the machine's own entry says counts, then the networks of the
 * plan. A NIC of which neither speaks is not in the answer, and stays unplugged. Pure.
 */
export function networksAt(
  { machines, networks = {} }: PlanDocument,
  machine: string,
  nics: readonly PlannedNic[],
  siteName: string,
): Readonly<Record<string, NicConnection>> {
  const own = machines[machine]?.networks ?? {};
  return Object.fromEntries(
    nics.flatMap(({ nicId, network }) => {
      const connection = ownOf(own, nicId) ?? ownOf(ownOf(networks, network) ?? {}, siteName);
      return connection ? [[nicId, connection]] : [];
    }),
  );
}
