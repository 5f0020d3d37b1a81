import assert from 'node:assert/strict';

/** A point as a target lists it. */
export interface ListedPoint {
  readonly pointId: string;
  readonly sequence: number;
  /** Guest bytes that were sent for changed. */
  readonly changedBytes: number;
  /** What of it crossed the wire since the connection that brought its end. */
  readonly receivedBytes: number;
  /** Cuts that became no points of their own, by their ids, where that is known. */
  readonly missed?: readonly string[];
}

/**
 * Everything that a test has seen of the points of one machine while sites and machines were killed: what a target listed, what it
 * acknowledged, which cuts were made. Fails the test at once where two of these do not fit.
 */
export class PointHistory {
  readonly #keeps: number;
  readonly #incrementBytesMax: number;
  readonly #ids = new Map<number, string>();
  readonly #sequences = new Map<string, number>();
  readonly #acknowledged = new Set<string>();
  readonly #missed = new Set<string>();
  /** How many bytes there are to each beyond those of an idle guest. */
  readonly #cuts = new Map<string, number>();
  #largestBytes = 0;

  /** `keeps`: retention lets go of no point that fewer have followed. Absent: of none. */
  constructor(o: { readonly keeps?: number; readonly incrementBytesMax: number }) {
    this.#keeps = o.keeps ?? Number.POSITIVE_INFINITY;
    this.#incrementBytesMax = o.incrementBytesMax;
  }

  /** How many points there have been. */
  get newest(): number {
    return Math.max(0, ...this.#ids.keys());
  }

  /** The most that was sent for changed, or crossed the wire, at once, without the first copy. */
  get largestBytes(): number {
    return this.#largestBytes;
  }

  has(pointId: string): boolean {
    return this.#sequences.has(pointId);
  }

  /** A cut was made: it becomes a point, or one names it among those it takes in. The guest was told to write `filledBytes` for it. */
  cut(cutId: string, filledBytes = 0): void {
    this.#cuts.set(cutId, filledBytes);
  }

  acknowledged({ pointId, sequence }: { readonly pointId: string; readonly sequence: number }): void {
    this.#acknowledged.add(pointId);
    this.#is(sequence, pointId);
  }

  /** The points that the target has now: everything up to its newest that retention has not let go. */
  lists(points: readonly ListedPoint[]): void {
    for (const point of points) this.#see(point);
    const listed = points.map(({ sequence }) => sequence);
    const newest = Math.max(0, ...listed);
    assert.equal(new Set(listed).size, listed.length, `a point is listed twice: ${listed.join(' ')}`);
    assert.equal(newest, this.newest, `point ${this.newest} is not there: ${listed.join(' ')}`);
    for (let sequence = newest; sequence > Math.max(0, newest - this.#keeps); sequence--)
      assert.ok(listed.includes(sequence), `point ${sequence} is not there: ${listed.join(' ')}`);
  }

  #see({ pointId, sequence, changedBytes, receivedBytes, missed = [] }: ListedPoint): void {
    this.#is(sequence, pointId);
    for (const cutId of missed) this.#missed.add(cutId);
    this.sent({ pointId, sequence }, Math.max(changedBytes, receivedBytes));
  }

  /** What crossed the wire for one point: but for the first, beyond what the guest was told to write, it is a difference. */
  sent({ pointId, sequence }: Pick<ListedPoint, 'pointId' | 'sequence'>, wireBytes: number): void {
    if (sequence === 1) return;
    const bytes = wireBytes - (this.#cuts.get(pointId) ?? 0);
    this.#largestBytes = Math.max(this.#largestBytes, bytes);
    assert.ok(bytes < this.#incrementBytesMax, `${bytes} bytes were sent for point ${sequence}`);
  }

  #is(sequence: number, pointId: string): void {
    const known = this.#ids.get(sequence) ?? pointId;
    assert.equal(known, pointId, `there are two points ${sequence}`);
    assert.equal(this.#sequences.get(pointId) ?? sequence, sequence, `point ${pointId} is there twice`);
    this.#ids.set(sequence, pointId);
    this.#sequences.set(pointId, sequence);
  }

  /** Fails the test unless every point from the first to the newest has been seen, and no cut that was made has been lost. */
  assertWithoutGap(): void {
    for (let sequence = 1; sequence <= this.newest; sequence++)
      assert.ok(this.#ids.has(sequence), `there never was a point ${sequence}`);
    for (const cutId of this.#cuts.keys())
      assert.ok(this.has(cutId) || this.#missed.has(cutId), `cut ${cutId} is neither a point nor missed`);
  }

  toString(): string {
    const missed = [...this.#missed].filter((cutId) => !this.has(cutId)).length;
    return `${this.newest} points (${this.#acknowledged.size} acknowledgements seen, ${missed} cuts taken in by others), at most ${this.largestBytes} bytes for one after the first`;
  }
}
