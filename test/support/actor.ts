/** Whoever does something that takes its time: the world decides when its turn comes, and whether it ever does. */
export interface Actor {
  turn<T>(label: string, effect: () => T): Promise<T>;
}

/** Somebody for whom everything happens at once. */
export const AT_ONCE: Actor = { turn: async (_label, effect) => effect() };
