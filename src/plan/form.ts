import { Value } from 'typebox/value';
import { PlanDocument, type PlanFinding } from '../api/index.ts';

/** Where a value has another form than a plan; none: it is a `PlanDocument`. Pure. */
export function formFindingsOf(value: unknown): PlanFinding[] {
  return Value.Errors(PlanDocument, value).map(({ instancePath, message }) => {
    const field = instancePath.slice(1).replaceAll('/', '.') || 'the plan';
    return { severity: 'error', message: `${field}: ${message}` };
  });
}
