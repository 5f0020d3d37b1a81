import type { GenerationView } from '../../api/index.ts';
import { isFailure, messageOf } from '../../lib/errors.ts';
import type { Audit } from '../base/audit.ts';
import { controlFailure } from '../errors.ts';
import type { Inventory } from '../inventory/inventory.ts';
import type { DivergedBranches } from '../replicas/diverged-branches.ts';
import { type FormerGeneration, type Generations, nameOfGeneration } from '../replicas/generations.ts';

interface GenerationActsTools {
  readonly generations: Generations;
  readonly diverged: Pick<DivergedBranches, 'aloneAt' | 'checkNothingUpon'>;
  readonly inventory: Pick<Inventory, 'find'>;
  readonly audit: Pick<Audit, 'acting'>;
}

/** What a person does with older generations. */
export class GenerationActs {
  readonly #o: GenerationActsTools;

  constructor(o: GenerationActsTools) {
    this.#o = o;
  }

  /** The oldest first. */
  async list(reference: string): Promise<GenerationView[]> {
    const { machineId } = this.#o.inventory.find(reference);
    const former = await this.#o.generations.former(machineId);
    return Promise.all(former.map((one) => this.#view(machineId, one)));
  }

  async #view(machineId: string, former: FormerGeneration): Promise<GenerationView> {
    const { generations } = this.#o;
    const newestAtMs = await unlessFailed(() => generations.newestMs(machineId, former));
    const needs = await unlessFailed(() => generations.needsOf(machineId, former));
    const unclear = needs.failure ?? newestAtMs.failure;
    return {
      ...former,
      generation: nameOfGeneration(former),
      sizeBytes: await generations.sizeBytes(former),
      ...(newestAtMs.value === undefined ? {} : { newestAtMs: Math.round(newestAtMs.value) }),
      branches: [...(await generations.branches(former))],
      needs: needs.value ?? [],
      ...(unclear === undefined ? {} : { unclear }),
    };
  }

  /** Throws GENERATION_UNKNOWN, GENERATION_NEEDED, and what hinders looking whether it is needed. */
  remove(actor: string, reference: string, generation: string): Promise<void> {
    const { machineId, name } = this.#o.inventory.find(reference);
    const details = { generation };
    const subject = machineId;
    return this.#o.audit.acting({ actor, act: 'generation.remove', subject, details }, async () => {
      const meant = (await this.#o.generations.former(machineId)).filter(
        (one) => nameOfGeneration(one) === generation || String(one.epoch) === generation,
      );
      const [only, second] = meant;
      if (!only || second) {
        const found = meant.map(nameOfGeneration).join(' and ');
        const said = only
          ? `${generation} may be ${found}`
          : `${name} has no older generation ${generation} here`;
        throw controlFailure('GENERATION_UNKNOWN', said, { context: { machineId, generation } });
      }
      await this.#o.diverged.aloneAt(only.directory, async () => {
        await this.#o.diverged.checkNothingUpon(machineId, only.directory);
        await this.#o.generations.remove(machineId, only);
      });
    });
  }
}

/** What cannot be looked at is told; it hinders nothing but its removal. */
async function unlessFailed<T>(
  work: () => Promise<T>,
): Promise<{ readonly value?: T; readonly failure?: string }> {
  try {
    return { value: await work() };
  } catch (error) {
    if (!isFailure(error)) throw error;
    return { failure: messageOf(error) };
  }
}
