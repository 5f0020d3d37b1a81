import { join } from 'node:path';
import { runCommand } from '../../src/lib/processes.ts';
import { randomBelow, systemRandom } from '../../src/lib/random.ts';
import type { TestApi } from './api.ts';
import { HeardQemu } from './heard-qemu.ts';
import { KillableSite } from './killable-site.ts';
import { lastFirst } from './last-first.ts';
import { type CleanUp, temporaryDirectory } from './temporary.ts';

const PEER_PORT = 7800;

/** A cable between two namespaces, or from one to the test, with an address at each end. */
interface Cable {
  readonly ends: readonly [string, string];
  readonly addresses: readonly [string, string];
}

/**
 * Sites in network namespaces of their own, each pair on a cable of its own that may be pulled: what one can reach says nothing of what
 * another can. The test reaches them all, over cables that stay.
 */
export class PartitionedSites {
  readonly #id = `${process.pid.toString(36)}${randomBelow(systemRandom, 36 ** 2).toString(36)}`;
  /** Addresses of this run: others may run beside it. */
  readonly #subnet = `10.${100 + randomBelow(systemRandom, 150)}.${randomBelow(systemRandom, 250)}`;
  readonly #cables = new Map<string, Cable>();
  readonly #sites = new Map<string, { readonly site: KillableSite; readonly qemu: HeardQemu }>();

  static async make(context: CleanUp, names: readonly string[]): Promise<PartitionedSites> {
    const t = lastFirst(context);
    const directory = await temporaryDirectory(t);
    const made = new PartitionedSites();
    for (const [index, name] of names.entries()) {
      const namespace = made.namespaceOf(name);
      await runCommand('ip', ['netns', 'add', namespace]);
      // Its ends of all cables go with it.
      t.after(async () => {
        await runCommand('ip', ['netns', 'delete', namespace]);
      });
      await runCommand('ip', ['-n', namespace, 'link', 'set', 'lo', 'up']);
      const apiHost = await made.#plugIn(name, index);
      const qemu = await HeardQemu.make(join(directory, `qemu-${name}`));
      const site = await KillableSite.init(t, directory, name, PEER_PORT, {
        namespace,
        programs: qemu.directory,
        apiHost,
        peerHost: '0.0.0.0',
      });
      made.#sites.set(name, { site, qemu });
    }
    for (const [at, one] of names.entries())
      for (const other of names.slice(at + 1)) await made.#connect(one, other);
    return made;
  }

  namespaceOf(name: string): string {
    return `wsp-${this.#id}-${name}`;
  }

  site(name: string): KillableSite {
    return this.#sites.get(name)!.site;
  }

  /** What the machines of a site have told. */
  qemu(name: string): HeardQemu {
    return this.#sites.get(name)!.qemu;
  }

  /** Pairs two sites that are served, each by its address on their cable. */
  async pair(one: string, other: string, apis: readonly [TestApi, TestApi]): Promise<void> {
    const { ends, addresses } = this.#cable(one, other);
    const addressOf = (name: string) => addresses[ends.indexOf(name)]!;
    const { token } = await apis[1].call('site.token', { body: { host: addressOf(other) } });
    await apis[0].call('site.pair', { body: { token, host: addressOf(one) } });
  }

  async pull(one: string, other: string): Promise<void> {
    await this.#set(one, other, 'down');
  }

  async mend(one: string, other: string): Promise<void> {
    await this.#set(one, other, 'up');
  }

  async #set(one: string, other: string, state: 'up' | 'down'): Promise<void> {
    const [first] = this.#cable(one, other).ends;
    const end = this.#endOf(first, first === one ? other : one);
    await runCommand('ip', ['-n', this.namespaceOf(first), 'link', 'set', end, state]);
  }

  #cable(one: string, other: string): Cable {
    return this.#cables.get([one, other].sort().join())!;
  }

  /** Names of interfaces have 15 characters at most. */
  #endOf(name: string, to: string): string {
    return `w${this.#id}${name[0]}${to[0]}`;
  }

  /** The cable between a site and the test. Returns the address of the site. */
  async #plugIn(name: string, index: number): Promise<string> {
    const [here, there] = [this.#endOf('test', name), this.#endOf(name, 'test')];
    await this.#veth([here, undefined], [there, this.namespaceOf(name)], [4 * index + 1, 4 * index + 2]);
    return `${this.#subnet}.${4 * index + 2}`;
  }

  async #connect(one: string, other: string): Promise<void> {
    const first = 4 * (this.#sites.size + this.#cables.size) + 1;
    await this.#veth(
      [this.#endOf(one, other), this.namespaceOf(one)],
      [this.#endOf(other, one), this.namespaceOf(other)],
      [first, first + 1],
    );
    const addresses = [`${this.#subnet}.${first}`, `${this.#subnet}.${first + 1}`] as const;
    this.#cables.set([one, other].sort().join(), { ends: [one, other], addresses });
  }

  async #veth(
    one: readonly [string, string | undefined],
    other: readonly [string, string],
    hosts: readonly [number, number],
  ): Promise<void> {
    await runCommand('ip', ['link', 'add', one[0], 'type', 'veth', 'peer', 'name', other[0]]);
    for (const [index, [end, namespace]] of [one, other].entries()) {
      if (namespace) await runCommand('ip', ['link', 'set', end, 'netns', namespace]);
      const inside = namespace ? ['-n', namespace] : [];
      await runCommand('ip', [...inside, 'address', 'add', `${this.#subnet}.${hosts[index]}/30`, 'dev', end]);
      await runCommand('ip', [...inside, 'link', 'set', end, 'up']);
    }
  }
}
