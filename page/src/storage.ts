/** What the browser remembers for the page. Where it may remember nothing, the page still does. */

const fallback = new Map<string, string>();

/** The text under a name; null for none. */
export function recall(kind: "tab" | "browser", name: string): string | null {
  try {
    return storageOf(kind).getItem(name);
  } catch {
    return fallback.get(name) ?? null;
  }
}

/** Remember a text under a name. */
export function remember(kind: "tab" | "browser", name: string, text: string): void {
  try {
    storageOf(kind).setItem(name, text);
  } catch {
    fallback.set(name, text);
  }
}

function storageOf(kind: "tab" | "browser"): Storage {
  return kind === "tab" ? sessionStorage : localStorage; // either throws if it is forbidden
}
