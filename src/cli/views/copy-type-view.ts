import type { MachineView } from '../../api/index.ts';
import type { Page } from '../page.ts';

type CopyTypes = NonNullable<NonNullable<MachineView['protected']>['protection']>['copyTypes'];

export function printCopyTypes(page: Page, types: CopyTypes): void {
  page.table(
    [
      { head: 'TYPE' },
      { head: 'AIM' },
      { head: 'DEFINED' },
      { head: 'HOOKS' },
      { head: 'ASSERTIONS' },
      { head: 'DESCRIPTION' },
    ],
    types.map(({ name, aim, isBuiltIn, hooks, assertions, description }) => [
      { text: name, tone: 'strong' },
      aim,
      isBuiltIn ? 'for every machine' : 'here',
      Object.entries(hooks ?? {})
        .map(([hook, { command }]) => `${hook}: ${command}`)
        .join(', '),
      (assertions ?? []).map((assertion) => assertion.name).join(', '),
      description,
    ]),
  );
}
