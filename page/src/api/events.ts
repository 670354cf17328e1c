/** Server-sent events of a response: https://html.spec.whatwg.org/multipage/server-sent-events.html */

import { Failure, messageOf } from "./client";

/** The JSON bodies of a stream, as they come. */
export async function* eventsOf<Body>(response: Response): AsyncGenerator<Body> {
  let ended = false;
  for await (const data of dataOf(response)) {
    ended = data === "[DONE]";
    if (ended) continue; // the connection is to end, too, and not to be broken off
    const body: unknown = JSON.parse(data);
    const wrong = messageOf(body);
    if (wrong !== null) throw new Failure(wrong);
    yield body as Body;
  }
  if (!ended) throw new Failure("The connection broke off before the end.");
}

async function* dataOf(response: Response): AsyncGenerator<string> {
  let lines: string[] = [];
  for await (const line of linesOf(response)) {
    if (line.startsWith("data:")) lines.push(line.slice(5).replace(/^ /, ""));
    if (line !== "" || lines.length === 0) continue;
    yield lines.join("\n");
    lines = [];
  }
}

async function* linesOf(response: Response): AsyncGenerator<string> {
  if (response.body === null) return;
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      rest += decoder.decode(value, { stream: true });
      const lines = rest.split(/\r\n|\n/);
      rest = lines.pop() ?? "";
      yield* lines;
    }
  } catch (error) {
    if (error instanceof TypeError) throw new Failure("The connection broke off before the end.");
    throw error;
  } finally {
    void reader.cancel().catch(() => undefined); // it may be aborted already
  }
}
