import type { Command } from 'commander';
import type { OriginView } from '../../api/index.ts';
import { formatTime } from '../format.ts';
import type { Page } from '../page.ts';
import { examples, type Runner } from './runner.ts';

/** Sites that are not paired with this one, and whose points paired ones forward here. */
export function addOriginCommands(program: Command, runner: Runner): void {
  const origin = program
    .command('origin')
    .description('sites whose points other sites forward here: whose key signs them');
  origin
    .command('list')
    .description('list the sites that were told of, with the keys that were told')
    .addHelpText('after', examples('warmsite origin list'))
    .action(
      runner.run(async (context) => {
        const origins = await (await context.api()).call('origin.list', {});
        return { document: origins, print: (page) => printOrigins(page, origins) };
      }),
    );
  origin
    .command('confirm')
    .description('say that this is the key of that site: its points are taken from now on')
    .argument('<site>', 'its id')
    .argument('<key>', 'as `warmsite site show` shows it at that site itself, and nowhere else')
    .addHelpText(
      'after',
      `${examples('warmsite origin confirm 01jd0c2r5m6v7x8y9z0a1b2c3d ed25519:5f0c…')}
Who forwards points could name a key of its own, and make points up: compare with the origin itself.`,
    )
    .action(
      runner.run(async (context, site: string, keyId: string) => {
        const api = await context.api();
        const confirmed = await api.call('origin.confirm', { params: { origin: site }, body: { keyId } });
        return { document: confirmed, print: (page) => printOrigins(page, [confirmed]) };
      }),
    );
  origin
    .command('forget')
    .description('take no more points of that site from others')
    .argument('<site>', 'its id')
    .addHelpText('after', examples('warmsite origin forget 01jd0c2r5m6v7x8y9z0a1b2c3d'))
    .action(
      runner.run(async (context, site: string) => {
        const done = await (await context.api()).call('origin.forget', { params: { origin: site } });
        return { document: done, print: (page) => page.line('It is forgotten.') };
      }),
    );
}

function printOrigins(page: Page, origins: readonly OriginView[]): void {
  if (origins.length === 0) {
    page.line('None: nobody has offered points of a site that is not paired with this one.');
    return;
  }
  page.table(
    [{ head: 'NAME' }, { head: 'KEY' }, { head: 'STATE' }, { head: 'BROUGHT BY' }, { head: 'ID' }],
    origins.map(({ name, keyId, confirmedAtMs, viaName, viaSiteId, siteId }) => [
      name,
      keyId,
      confirmedAtMs === undefined
        ? { text: 'not confirmed: nothing is taken', tone: 'warning' as const }
        : `confirmed ${formatTime(confirmedAtMs)}`,
      viaName ?? viaSiteId,
      siteId,
    ]),
  );
}
