import type { SiteEvent } from '../../api/index.ts';

/** Tells whoever listens that something of the site has changed; keeps nothing. */
export class EventHub {
  readonly #listeners = new Set<(event: SiteEvent) => void>();

  emit(event: SiteEvent): void {
    for (const listener of this.#listeners) listener(event);
  }

  /** Calls `listener` with every event from now on; the returned function ends that. */
  listen(listener: (event: SiteEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}
