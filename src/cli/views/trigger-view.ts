import type { SiteView, TriggerView } from '../../api/index.ts';
import { hostPort } from '../../lib/host-port.ts';
import { formatAge } from '../format.ts';
import type { Page } from '../page.ts';

export function printTriggers(page: Page, triggers: readonly TriggerView[], nowMs: number): void {
  if (triggers.length === 0) {
    page.line('None. One is made with warmsite vm trigger create.');
    return;
  }
  page.table(
    [
      { head: 'VM' },
      { head: 'TYPE' },
      { head: 'CREATED' },
      { head: 'LAST USED' },
      { head: 'ID' },
      { head: 'NOTE' },
    ],
    triggers.map(({ machine, machineId, copyType, createdAtMs, lastUsedAtMs, triggerId, note }) => [
      machine ?? machineId,
      copyType,
      formatAge(createdAtMs, nowMs),
      lastUsedAtMs === undefined ? 'never' : formatAge(lastUsedAtMs, nowMs),
      triggerId,
      note ?? '',
    ]),
  );
}

/** The one time that the token is told. */
export function printIssued(
  page: Page,
  { trigger, token }: { readonly trigger: TriggerView; readonly token: string },
  { apiAddress }: Pick<SiteView, 'apiAddress'>,
  authorityPath: string,
): void {
  page.line(token).line('');
  page.line('This token is shown once. Whoever has it can have such copies made, and nothing else:');
  page.line(`  curl --cacert ${authorityPath} -X POST -H "Authorization: Bearer $TOKEN" \\`);
  page.line(`    https://${hostPort(apiAddress)}/v1/triggers/${trigger.triggerId}`);
  page.line(`It is good until: warmsite vm trigger revoke ${trigger.triggerId}`);
}
