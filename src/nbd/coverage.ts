/** Pieces that a server may scatter one reply into before it is taken for an attack on memory. */
const RANGES_MAX = 1024;

/**
 * Which bytes of a read have come. Servers may send the chunks of a reply in any order, but each byte once;
 * nearly all send them in ascending order, which costs one comparison a chunk.
 */
export class Coverage {
  /** Disjoint, ascending, never touching: start and end in turn. */
  readonly #bounds: number[] = [];
  #total = 0;

  get totalBytes(): number {
    return this.#total;
  }

  /** Adds `[start, end)`; says why not when it cannot. */
  add(start: number, end: number): 'added' | 'overlap' | 'scattered' {
    const bounds = this.#bounds;
    let at = bounds.length;
    while (at > 0 && bounds[at - 2]! >= end) at -= 2;
    // Everything from `at` on lies after the new range; the range before it, if any, starts below `end`.
    if (at > 0 && bounds[at - 1]! > start) return 'overlap';
    const touchesBefore = at > 0 && bounds[at - 1] === start;
    const touchesAfter = at < bounds.length && bounds[at] === end;
    if (touchesBefore && touchesAfter) bounds.splice(at - 1, 2);
    else if (touchesBefore) bounds[at - 1] = end;
    else if (touchesAfter) bounds[at] = start;
    else if (bounds.length >= 2 * RANGES_MAX) return 'scattered';
    else bounds.splice(at, 0, start, end);
    this.#total += end - start;
    return 'added';
  }
}
