import type { CutRecord, MachineRecord } from './records.ts';

/**
 * The record of a machine that is called something else from its next cut on. What it was called at the cuts that there are is
 * kept: a point that a target has, and whose acknowledgement was lost, must be stated again in the very same words. Pure.
 */
export function renamed(record: MachineRecord, cuts: readonly CutRecord[], name: string): MachineRecord {
  const { formerNames = [], ...others } = record;
  const oldest = cuts[0]?.ordinal ?? Number.POSITIVE_INFINITY;
  const last = cuts.at(-1)?.ordinal;
  const kept = [
    ...formerNames.filter(({ untilOrdinal }) => untilOrdinal >= oldest),
    ...(last === undefined ? [] : [{ name: record.name, untilOrdinal: last }]),
  ];
  return {
    ...others,
    name,
    configuration: { ...record.configuration, name },
    ...(kept.length > 0 ? { formerNames: kept } : {}),
  };
}

/** What a machine was called at a cut. */
export function nameAt({ name, formerNames = [] }: MachineRecord, { ordinal }: CutRecord): string {
  return formerNames.find(({ untilOrdinal }) => ordinal <= untilOrdinal)?.name ?? name;
}
