import type { PlanDocument } from '../api/index.ts';
import { canonicalJson, type Json } from '../lib/canonical-json.ts';

/** What changes from one plan to another, a line for each thing that differs; pure. */
export function differenceOf(before: PlanDocument, after: PlanDocument): string[] {
  return [
    ...(before.description === after.description ? [] : ['description']),
    ...['points', 'oneCut', 'hooks', 'fencing'].flatMap((field) =>
      show(before, field) === show(after, field)
        ? []
        : [`${field} ${show(before, field)} → ${show(after, field)}`],
    ),
    ...changed('network', before.networks ?? {}, after.networks ?? {}),
    ...changed('machine', before.machines, after.machines),
  ];
}

function changed(
  what: string,
  before: Readonly<Record<string, object>>,
  after: Readonly<Record<string, object>>,
): string[] {
  const names = [...new Set([...Object.keys(before), ...Object.keys(after)])];
  return names.flatMap((name) => {
    const [old, now] = [before[name], after[name]];
    if (!old) return [`+ ${what} ${name}`];
    if (!now) return [`- ${what} ${name}`];
    return fieldsOf(old, now).map(
      (field) => `~ ${what} ${name}: ${field} ${show(old, field)} → ${show(now, field)}`,
    );
  });
}

function fieldsOf(before: object, after: object): string[] {
  const fields = [...new Set([...Object.keys(before), ...Object.keys(after)])];
  return fields.filter((field) => show(before, field) !== show(after, field));
}

function show(of: object, field: string): string {
  const value = (of as Readonly<Record<string, Json | undefined>>)[field];
  return value === undefined ? 'not said' : canonicalJson(value);
}
