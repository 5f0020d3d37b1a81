import type { Command } from 'commander';
import type { OlderCopyView } from '../../api/index.ts';
import type { Context, Report } from '../context.ts';
import { cliFailure } from '../errors.ts';
import { formatTime } from '../format.ts';
import { type DiskOption, parseDisk } from '../machine-description.ts';
import type { Page } from '../page.ts';
import { listed } from '../values.ts';
import { examples, type Runner } from './runner.ts';

interface OfferOptions {
  readonly disk?: readonly DiskOption[];
  readonly from?: string;
  readonly withdraw?: true;
}

/** Older copies of disks that a recovery site has, from which a first copy takes what has not changed. */
export function addOlderCopyCommands(seed: Command, runner: Runner): void {
  seed
    .command('offer')
    .description('say that this recovery site has an older copy: only blocks that differ will be sent')
    .argument('<vm>', 'name or id at its own site; it need not be known here yet')
    .option(
      '--disk <ID=PATH[:format]>',
      'a file that is an older copy of that disk; may be repeated. It is only read',
      listed('--disk', parseDisk),
    )
    .option('--from <site>', 'the site where the machine is at home; needed where several are paired')
    .option('--withdraw', 'do not use it any more')
    .addHelpText(
      'after',
      `${examples(
        'warmsite seed offer web --disk disk0=/backup/web-2026-05.qcow2',
        'warmsite seed offer db --disk disk0=/srv/templates/debian.raw --disk disk1=/backup/db-data.raw --from north',
        'warmsite seed offer web --withdraw',
      )}
Then, at the other site: warmsite vm protect web. A first copy that is on its way goes on with it. The file may be old, damaged or of
another machine: that costs bytes on the wire, never a wrong byte, because every block is proven before it counts.`,
    )
    .action(runner.run(offer));
  seed
    .command('offers')
    .description('list the older copies that are offered here')
    .addHelpText('after', examples('warmsite seed offers'))
    .action(
      runner.run(async (context) => {
        const offers = await (await context.api()).call('seed.offers', {});
        return { document: offers, print: (page) => printOffers(page, offers) };
      }),
    );
}

async function offer(context: Context, machine: string, o: OfferOptions): Promise<Report> {
  const api = await context.api();
  if (o.withdraw) {
    if (o.disk || o.from !== undefined) throw contradiction('`--withdraw` stands alone');
    const withdrawn = await api.call('seed.withdraw', { params: { machine } });
    return { document: withdrawn, print: (page) => page.line(`Nothing is taken from it any more.`) };
  }
  if (!o.disk) throw contradiction('name at least one file with `--disk ID=PATH`');
  const disks = o.disk.map((disk) => ({ ...disk, path: context.path(disk.path) }));
  const body = { disks, ...(o.from === undefined ? {} : { from: o.from }) };
  const offered = await api.call('seed.offer', { params: { machine }, body });
  return {
    document: offered,
    print: (page) => {
      page.line(
        { text: 'Offered: ', tone: 'good' },
        `the first copy of ${machine} from ${offered.siteName ?? offered.siteId} brings what differs.`,
      );
      page.line('At that site: ', { text: `warmsite vm protect ${machine}`, tone: 'faint' });
    },
  };
}

function printOffers(page: Page, offers: readonly OlderCopyView[]): void {
  if (offers.length === 0) page.line('No older copy is offered.');
  for (const { machine, siteName, siteId, offeredAtMs, disks } of offers) {
    page.title(`${machine} from ${siteName ?? siteId}, since ${formatTime(offeredAtMs)}`);
    page.fields(
      disks.map(({ diskId, path, format, unfit }) => [
        diskId,
        unfit === undefined
          ? `${path} (${format})`
          : { text: `${path} (${format}): not used, ${unfit}`, tone: 'warning' },
      ]),
    );
  }
}

function contradiction(said: string): Error {
  return cliFailure('CLI_USAGE', said);
}
