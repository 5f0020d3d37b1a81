/**
 * The states of one thing as people read of them, and as tests hold the code to them: what each promises about data, and what makes it
 * another one. A way that leads back to its own state changes what the state is about, such as a claim.
 */
export type StateTable<S extends string, E extends string> = Readonly<Record<S, StateRow<S, E>>>;

export interface StateRow<S extends string, E extends string> {
  /** One sentence, or two. */
  readonly data: string;
  readonly next: readonly Way<S, E>[];
}

export interface Way<S extends string, E extends string> {
  readonly by: E;
  readonly to: S;
  /** What comes before it. */
  readonly when: string;
}
