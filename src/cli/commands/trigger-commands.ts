import { join } from 'node:path';
import type { Command } from 'commander';
import { CLIENT_FILES } from '../../api/index.ts';
import { named, parseName } from '../values.ts';
import { printIssued, printTriggers } from '../views/trigger-view.ts';
import { examples, type Runner } from './runner.ts';

/** Copies that are asked for from outside: triggers of the policy, and tokens for those who are no operators. */
export function addTriggerCommands(vm: Command, runner: Runner): void {
  const trigger = vm
    .command('trigger')
    .description('have copies made that somebody asks for; tokens to do so');
  trigger
    .command('call', { isDefault: true })
    .description('pull a trigger of the copy policy: the copies that it asks for are due now')
    .argument('<vm>', 'name or id')
    .argument('<trigger>', 'its name in the policy')
    .addHelpText('after', examples('warmsite vm trigger web deploy', 'warmsite vm trigger call web deploy'))
    .action(
      runner.run(async (context, machine: string, name: string) => {
        const params = { machine, trigger: name };
        const answer = await (await context.api()).call('trigger.call', { params });
        return { document: answer, print: (page) => page.line(`Due now: ${answer.copyTypes.join(', ')}.`) };
      }),
    );
  trigger
    .command('create')
    .description(
      'issue a token with which one may have copies of one type made of one machine, and nothing else',
    )
    .argument('<vm>', 'name or id')
    .requiredOption(
      '--copy-type <type>',
      'crash, app or a type of the machine',
      named('--copy-type', parseName),
    )
    .option('--note <text>', 'for whom it is')
    .addHelpText('after', examples("warmsite vm trigger create db --copy-type app --note 'nightly deploy'"))
    .action(
      runner.run(async (context, machine: string, o: { copyType: string; note?: string }) => {
        const api = await context.api();
        const body = { copyType: o.copyType, ...(o.note === undefined ? {} : { note: o.note }) };
        const issued = await api.call('trigger.create', { params: { machine }, body });
        const site = await api.call('site.show', {});
        const authorityPath = join(site.dataDirectory, CLIENT_FILES.authority);
        return { document: issued, print: (page) => printIssued(page, issued, site, authorityPath) };
      }),
    );
  trigger
    .command('list')
    .description('list who may have copies made, and when that was last done; never the tokens')
    .addHelpText('after', examples('warmsite vm trigger list'))
    .action(
      runner.run(async (context) => {
        const triggers = await (await context.api()).call('trigger.list', {});
        return { document: triggers, print: (page) => printTriggers(page, triggers, context.nowMs) };
      }),
    );
  trigger
    .command('revoke')
    .description('take a token back; it is good for nothing from then on')
    .argument('<id>', 'as `warmsite vm trigger list` shows it')
    .addHelpText('after', examples('warmsite vm trigger revoke 01hzzzzzzzzzzzzzzzzzzzzzzz'))
    .action(
      runner.run(async (context, id: string) => {
        const revoked = await (await context.api()).call('trigger.revoke', { params: { trigger: id } });
        const of = `${revoked.copyType} copies of ${revoked.machine ?? revoked.machineId}`;
        return { document: revoked, print: (page) => page.line(`The token for ${of} is revoked.`) };
      }),
    );
}
