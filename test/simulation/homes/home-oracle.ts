import { dirname, resolve } from 'node:path';
import { generationOf } from '../../../src/control/replicas/generations.ts';
import { type Claim, compareClaims, type Tenure } from '../../../src/recovery-point/index.ts';
import { branchChain, branchLayer, ReplicaLayout } from '../../../src/replica/index.ts';
import { openFiles } from '../../support/fake-images.ts';
import type { FakeMachine } from '../../support/fake-machine.ts';
import { openChain } from '../../support/qcow2-reader.ts';
import { DATA, DISK, MACHINE_ID } from '../leases/made-sites.ts';
import { SimFiles } from '../sim-files.ts';
import { Violation } from '../violation.ts';
import { type Contents, type State, said } from './contents.ts';
import { HOME_NAMES, type HomeName, type HomeSite } from './home-site.ts';

/** Layers name those below them as seen from where they lie. */
const ABSOLUTE = (name: string, image: string) => resolve(dirname(image), name);

interface Begun {
  readonly claim: Claim | undefined;
  readonly line: string;
}

/** Everything that must hold at every turn, and what rest is. */
export class HomeOracle {
  readonly #sites: Readonly<Record<HomeName, HomeSite>>;
  readonly #contents: Contents;
  /** Epochs that were held, and by whom. */
  readonly #held = new Map<number, string>();
  readonly #claims = new Set<string>();
  /** By a person's word, by whose claims two may run. */
  readonly #confirmed = new Set<string>();
  /** Sites at which somebody gives his word just now. */
  readonly #words = new Set<HomeName>();
  /** What people have thrown away. */
  readonly #discarded = new Set<string>();
  readonly #begun = new Map<FakeMachine, Begun>();
  /** States that some site has acknowledged. */
  readonly #points = new Map<string, State>();
  /** How many points were acknowledged. */
  acknowledged = 0;

  constructor(o: { readonly sites: Readonly<Record<HomeName, HomeSite>>; readonly contents: Contents }) {
    this.#sites = o.sites;
    this.#contents = o.contents;
  }

  /** A guest has begun: by what its site knew then, upon what it finds. */
  async begun(name: HomeName, guest: FakeMachine, runDirectory: string): Promise<void> {
    const line = runDirectory.split('/').at(-1)!;
    this.#begun.set(guest, { claim: this.#sites[name].tenure?.claim, line });
    const isNew = !this.#contents.lines.includes(line);
    const state = this.#contents.begins(line, await this.#contents.read(guest));
    if (!isNew) return;
    const replica = this.#sites[name].replica;
    const branch = replica?.branches.find(({ branchId }) => branchId === line);
    const point = branch && this.#points.get(branch.pointId);
    if (point && (point.line !== state.line || point.lastValue !== state.lastValue))
      throw new Violation(
        `branch ${line.slice(-4)} begins with ${said(state)}, and its point is ${said(point)}`,
      );
  }

  /** A person has said that what was written there is to go: it may, from now on. */
  discarded(line: string): void {
    this.#discarded.add(line);
  }

  lineOf(guest: FakeMachine): string {
    return this.#begun.get(guest)!.line;
  }

  /** A site has acknowledged a point: it reads as something that the machine was. */
  async published(name: HomeName, pointId: string): Promise<void> {
    const { replica, host } = this.#sites[name];
    if (!replica?.points.some(({ statement }) => statement.pointId === pointId)) return;
    const found = await readChain(new SimFiles(host.disk), replica.chain(pointId, DISK.diskId));
    this.acknowledged += 1;
    this.#points.set(pointId, this.#contents.identify(found, `point ${pointId.slice(-4)}`));
  }

  /** Somebody gives his word that the other site is down: what his site claims by it may run beside another. */
  wordBegins(name: HomeName): void {
    this.#words.add(name);
  }

  /** What he asked for is done: it may have been by its last step that the machine was claimed. */
  wordEnds(name: HomeName): void {
    this.#noteClaim(name);
    this.#words.delete(name);
  }

  check(): void {
    for (const name of HOME_NAMES) this.#noteClaim(name);
    this.#checkOneRuns();
    this.#checkEpochs();
  }

  #checkOneRuns(): void {
    const running = HOME_NAMES.flatMap((name) =>
      this.#sites[name].host.isOn ? this.#sites[name].guests.map(({ guest }) => ({ name, guest })) : [],
    );
    const [one, other] = running;
    if (!one || !other) return;
    const claims = [one, other].map(({ guest }) => this.#begun.get(guest)!.claim);
    const higher = claims[0] && claims[1] && compareClaims(claims[0], claims[1]) > 0 ? claims[0] : claims[1];
    if (one.name !== other.name && higher && this.#confirmed.has(nameOf(higher))) return;
    throw new Violation(
      `the machine runs twice, at ${one.name} and ${other.name}: by ${claims.map((claim) => claim && nameOf(claim)).join(' and ')}`,
    );
  }

  #noteClaim(name: HomeName): void {
    const { tenure, siteId } = this.#sites[name];
    if (tenure?.state !== 'holds' || tenure.claim.siteId !== siteId) return;
    const claim = nameOf(tenure.claim);
    if (this.#claims.has(claim)) return;
    this.#claims.add(claim);
    if (this.#words.has(name)) this.#confirmed.add(claim);
  }

  #checkEpochs(): void {
    for (const name of HOME_NAMES) {
      const { tenure } = this.#sites[name];
      if (tenure?.state !== 'holds') continue;
      const { claim } = tenure;
      const before = this.#held.get(claim.epoch) ?? claim.siteId;
      this.#held.set(claim.epoch, claim.siteId);
      if (before === claim.siteId) continue;
      const isConfirmed = [before, claim.siteId].some((one) =>
        this.#confirmed.has(nameOf({ epoch: claim.epoch, siteId: one })),
      );
      if (!isConfirmed) throw new Violation(`epoch ${claim.epoch} is held by two sites`);
    }
  }

  /** What has not come to rest, if anything. */
  unrest(): string[] {
    const { A, B } = this.#sites;
    if (!A.open || !B.open) return ['a site is not open'];
    const found: string[] = [];
    for (const { name, open } of [A, B])
      if (open!.replicas.broken.length + open!.machines.broken.length > 0) found.push(`${name} is not whole`);
    const [a, b] = [A.tenure, B.tenure];
    if (!a || !b) return [`a site knows nothing of the machine: ${textOf(a)}, ${textOf(b)}`];
    const holders = HOME_NAMES.filter((name) => this.#sites[name].tenure?.state === 'holds');
    if (holders.length !== 1)
      found.push(`${holders.length} sites hold the machine: ${textOf(a)}, ${textOf(b)}`);
    if (compareClaims(a.claim, b.claim) !== 0)
      found.push(`the sites know of other claims: ${textOf(a)}, ${textOf(b)}`);
    const runs = HOME_NAMES.filter((name) => this.#sites[name].guests.length > 0);
    if (runs.join() !== holders.join()) found.push(`it runs at ${runs.join() || 'no site'}`);
    const holder = holders[0] && this.#sites[holders[0]];
    if (!holder?.home?.record.protection) found.push('it is at home nowhere, or not protected');
    return found;
  }

  /** What was written last is what runs, or kept somewhere by its name, or in a point that was acknowledged. */
  async checkNothingLost(): Promise<void> {
    const kept = new Set([...this.#points.values()].map(said));
    for (const name of HOME_NAMES)
      for (const state of await this.#statesAt(this.#sites[name])) kept.add(said(state));
    for (const line of this.#contents.lines) {
      if (!this.#contents.hasWritten(line) || this.#discarded.has(line)) continue;
      const last = said(this.#contents.stateOf(line));
      if (!kept.has(last))
        throw new Violation(`${last} is nowhere any more; there is ${[...kept].join(', ')}`);
    }
  }

  /** Of what a site shows to its people. */
  async #statesAt({ name, open, host, guests }: HomeSite): Promise<State[]> {
    const files = new SimFiles(host.disk);
    const found: State[] = [];
    for (const { guest, runDirectory } of guests)
      found.push(this.#contents.identify(await this.#contents.read(guest), runDirectory));
    const replica = open!.replicas.get(MACHINE_ID);
    for (const branch of replica?.branches ?? []) {
      // What a machine lies upon is written by its merges: the machine itself is read below.
      if (branch.branchId === replica!.record.adopted) continue;
      const bytes = await readChain(files, branchChain(replica!, branch, DISK.diskId));
      found.push(this.#contents.identify(bytes, `branch ${branch.branchId.slice(-4)} at ${name}`));
    }
    const machine = open!.machines.get(MACHINE_ID)?.machine;
    if (machine) {
      const bytes = await readChain(files, machine.chain(DISK.diskId));
      found.push(this.#contents.identify(bytes, `the machine at ${name}`));
    }
    for (const diverged of await open!.diverged.list(MACHINE_ID)) {
      const disk = diverged.about.disks.find(({ diskId }) => diskId === DISK.diskId)!;
      const bytes = await readChain(files, disk.chain);
      found.push(this.#contents.identify(bytes, `${diverged.name} at ${name}`));
    }
    for (const former of await open!.generations.former(MACHINE_ID))
      for (const branchId of await open!.generations.branches(former)) {
        const path = branchLayer(
          new ReplicaLayout(DATA, MACHINE_ID, generationOf(former.directory).generation),
          branchId,
          DISK.diskId,
        );
        await using reader = await openChain(files, path, ABSOLUTE, { leaks: 'allowed' });
        const bytes = await reader.read(0, DISK.sizeBytes);
        found.push(this.#contents.identify(bytes, `branch ${branchId.slice(-4)} of epoch ${former.epoch}`));
      }
    return found;
  }
}

async function readChain(files: SimFiles, chain: Parameters<typeof openFiles>[1]): Promise<Buffer> {
  const { reader } = await openFiles(files, chain);
  try {
    return await reader.read(0, DISK.sizeBytes);
  } finally {
    await reader[Symbol.asyncDispose]();
  }
}

function nameOf({ epoch, siteId }: Claim): string {
  return `${epoch}${siteId.at(-1)}`;
}

export function textOf(tenure: Tenure | undefined): string {
  return tenure ? `${tenure.state} ${nameOf(tenure.claim)}` : 'nothing';
}
