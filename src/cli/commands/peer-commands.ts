import type { Command } from 'commander';
import { hostPort } from '../../lib/host-port.ts';
import { named, parseAddress } from '../values.ts';
import { examples, type Runner } from './runner.ts';

/** What a person does with a site that is paired already; `site token` and `site pair` make the pairing. */
export function addPeerCommands(site: Command, runner: Runner): void {
  const peer = site.command('peer').description('a paired site: change its address, end the trust in it');
  peer
    .command('remove')
    .description('trust this site no longer: it is refused at once, and what is under way with it ends')
    .argument('<site>', 'name or id, as `warmsite site peers` shows it')
    .option('--force', 'also when machines are protected to it or replicas come from it; those copies stop')
    .addHelpText(
      'after',
      `${examples('warmsite site peer remove south', 'warmsite site peer remove south --force')}
Points that are here stay, and can be brought to life. Pairing the sites again restores the trust.`,
    )
    .action(
      runner.run(async (context, name: string, o: { force?: boolean }) => {
        const body = o.force === undefined ? {} : { force: o.force };
        const removed = await (await context.api()).call('peer.remove', { params: { peer: name }, body });
        return {
          document: removed,
          print: (page) => {
            page.line(`${removed.name} (${removed.siteId}) is trusted no longer.`);
            page.line('Write a new recovery kit, which knows that: warmsite site kit --to FILE');
          },
        };
      }),
    );
  peer
    .command('address')
    .description('reach this site at another address from now on')
    .argument('<site>', 'name or id, as `warmsite site peers` shows it')
    .argument('<host:port>', 'where it listens for other sites', named('<host:port>', parseAddress))
    .addHelpText(
      'after',
      examples(
        'warmsite site peer address south south.example.com:7443',
        "warmsite site peer address south '[2001:db8::7]:7443'",
      ),
    )
    .action(
      runner.run(async (context, name: string, address: ReturnType<typeof parseAddress>) => {
        const api = await context.api();
        const changed = await api.call('peer.address', { params: { peer: name }, body: address });
        return {
          document: changed,
          print: (page) => {
            page.line(`${changed.name} is reached at ${hostPort(changed.address)} from now on.`);
          },
        };
      }),
    );
}
