import { isId } from './random.ts';

/**
 * What a site has of a machine begins anew when the direction of its replication turns: each beginning is a generation, with a
 * directory of its own beside the older ones. It is named by the epoch in which it began; the first one has no number.
 */
export type Generation = number | undefined;

/** The name of the directory. */
export function generationName(id: string, generation: Generation): string {
  return generation === undefined ? id : `${id}.${generation}`;
}

/** The generations that there are among the names of a directory, by id, the newest first; what is no such name is left out. */
export function generationsIn(names: Iterable<string>): ReadonlyMap<string, readonly Generation[]> {
  const found = new Map<string, Set<Generation>>();
  for (const name of names) {
    const [id = '', number, ...others] = name.split('.');
    if (!isId(id) || others.length > 0 || (number !== undefined && !/^[1-9]\d{0,14}$/.test(number))) continue;
    const generations = found.get(id) ?? new Set();
    found.set(id, generations.add(number === undefined ? undefined : Number(number)));
  }
  return new Map([...found].map(([id, generations]) => [id, [...generations].sort(newestFirst)]));
}

function newestFirst(a: Generation, b: Generation): number {
  return (b ?? 0) - (a ?? 0);
}
