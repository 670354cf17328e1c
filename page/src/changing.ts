/** Things that change, and those who watch them. */

import { useEffect, useState } from "preact/hooks";

/** Something that tells its watchers when it has changed. */
export class Changing {
  private readonly watchers = new Set<() => void>();

  watch(watcher: () => void): () => void {
    this.watchers.add(watcher);
    return () => this.watchers.delete(watcher);
  }

  protected changed(): void {
    for (const watcher of this.watchers) watcher();
  }
}

/** Draw the component anew whenever something changes. */
export function useChanging(thing: Changing): void {
  const [, again] = useState(0);
  useEffect(() => thing.watch(() => again((count) => count + 1)), [thing]);
}
