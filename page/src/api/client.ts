/** Requests to the server: with the key, and with errors in words. */

import { recall, remember } from "../storage";

const KEY = "unitok-key";

/** A request that was refused or failed. Its message is for a person. */
export class Failure extends Error {
  constructor(
    message: string,
    readonly status: number = 0,
    readonly retryAfter: number | null = null,
  ) {
    super(message);
  }
}

type AskForKey = (message: string) => Promise<string | null>;

let askForKey: AskForKey = async () => null;
let asking: Promise<string | null> | null = null;

/** Set how a person is asked for a key. It gives null if the person has none. */
export function onKeyNeeded(ask: AskForKey): void {
  askForKey = ask;
}

/** The response to a request. A key is asked for if the server wants one. */
export async function request(path: string, init: RequestInit = {}): Promise<Response> {
  for (;;) {
    const response = await attempt(path, init);
    if (response.ok) return response;
    const failure = await failureOf(response);
    if (response.status !== 401 || !(await hasNewKey(failure.message))) throw failure;
  }
}

/** The response to a JSON body. */
export function post(path: string, body: unknown, signal: AbortSignal): Promise<Response> {
  const headers = { "content-type": "application/json" };
  return request(path, { method: "POST", headers, body: JSON.stringify(body), signal });
}

/** Whether an error says that the person has cancelled. */
export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === "AbortError";
}

/** An error in words. */
export function inWords(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const again = error instanceof Failure ? error.retryAfter : null;
  return again === null ? error.message : `${error.message} (in about ${again} s)`;
}

async function attempt(path: string, init: RequestInit): Promise<Response> {
  const headers = new Headers(init.headers);
  const key = recall("tab", KEY);
  if (key) headers.set("authorization", `Bearer ${key}`);
  try {
    return await fetch(new URL(path, document.baseURI), { ...init, headers });
  } catch (error) {
    if (isAbort(error)) throw error;
    throw new Failure("The server cannot be reached. Is it still running?");
  }
}

async function hasNewKey(message: string): Promise<boolean> {
  asking ??= askForKey(message).finally(() => (asking = null));
  const key = await asking;
  if (key === null) return false;
  remember("tab", KEY, key);
  return true;
}

async function failureOf(response: Response): Promise<Failure> {
  const seconds = Number(response.headers.get("retry-after"));
  const retryAfter = seconds > 0 ? seconds : null;
  const fallback = `The server answered ${response.status} ${response.statusText}`.trim();
  try {
    const told = messageOf(await response.json());
    return new Failure(told ?? fallback, response.status, retryAfter);
  } catch {
    return new Failure(fallback, response.status, retryAfter);
  }
}

/** The message of a body that reports an error; null if it reports none. */
export function messageOf(body: unknown): string | null {
  const error = (body as { error?: { message?: unknown } } | null)?.error;
  return typeof error?.message === "string" ? error.message : null;
}
