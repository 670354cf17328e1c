/** Questions, and answers piece by piece: POST /v1/chat/completions. */

import { asDataUrl } from "../pictures";
import { post } from "./client";
import { eventsOf } from "./events";

export interface Exchange {
  question: string;
  answer: string;
}

interface Chunk {
  choices: { delta: { content?: string } }[];
}

/**
 * The pieces of an answer.
 *
 * @param picture What the question is about; null if it is about none.
 * @param before What was asked about it before.
 */
export async function* ask(
  model: string,
  question: string,
  picture: Blob | null,
  before: Exchange[],
  signal: AbortSignal,
): AsyncGenerator<string> {
  const messages = await conversation([...before, { question, answer: "" }], picture);
  const body = { model, messages, stream: true };
  for await (const chunk of eventsOf<Chunk>(await post("v1/chat/completions", body, signal))) {
    const piece = chunk.choices[0]?.delta.content;
    if (piece) yield piece;
  }
}

async function conversation(exchanges: Exchange[], picture: Blob | null): Promise<object[]> {
  const url = picture === null ? null : await asDataUrl(picture);
  const shown = url === null ? [] : [{ type: "image_url", image_url: { url } }];
  return exchanges.flatMap(({ question, answer }, i) => [
    { role: "user", content: [...(i === 0 ? shown : []), { type: "text", text: question }] },
    ...(i < exchanges.length - 1 ? [{ role: "assistant", content: answer }] : []),
  ]);
}
