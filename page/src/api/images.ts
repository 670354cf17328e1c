/** Pictures, with previews while they are painted: POST /v1/images/generations and edits. */

import { fromBase64 } from "../pictures";
import { post, request } from "./client";
import { eventsOf } from "./events";

const PREVIEWS = 3;

/** How pictures are made, but for their seeds. What is null is left to the model. */
export interface Recipe {
  model: string;
  prompt: string;
  negative: string | null;
  guidance: number | null;
  size: string | null;
  /** The picture that is changed; null for a new one. */
  source: Blob | null;
  /** Which part of it: a PNG, transparent where it is painted anew. Null for all of it. */
  mask: Blob | null;
}

/** A preview or a picture, of one of several pictures. */
export interface PaintEvent {
  kind: "preview" | "picture";
  index: number;
  seed: number;
  /** Which preview it is, from 0 on. */
  step: number;
  blob: Blob;
}

interface Body {
  type: string;
  b64_json: string;
  output_format: string;
  image_index: number;
  partial_image_index?: number;
  seed: number;
}

/**
 * Previews and pictures as they come.
 *
 * @param seed That of the first picture. Each other one has the next number.
 */
export async function* paint(
  recipe: Recipe,
  n: number,
  seed: number,
  signal: AbortSignal,
): AsyncGenerator<PaintEvent> {
  const fields = { ...fieldsOf(recipe), n, seed, stream: true, partial_images: previewsOf(recipe) };
  const response =
    recipe.source === null
      ? await post("v1/images/generations", fields, signal)
      : await request("v1/images/edits", { method: "POST", body: form(recipe, fields), signal });
  for await (const body of eventsOf<Body>(response)) yield eventOf(body);
}

/** How many previews of each picture there are. Of a part, the best of several tries is taken. */
export function previewsOf(recipe: Recipe): number {
  return recipe.mask === null ? PREVIEWS : 0;
}

function fieldsOf(recipe: Recipe): Record<string, string | number> {
  const { model, prompt, negative, guidance, size, source } = recipe;
  return {
    model,
    prompt,
    ...(guidance === null ? {} : { guidance }),
    ...(source !== null || negative === null ? {} : { negative_prompt: negative }),
    ...(source !== null || size === null ? {} : { size }),
  };
}

function form(recipe: Recipe, fields: Record<string, unknown>): FormData {
  const data = new FormData();
  for (const [name, value] of Object.entries(fields)) data.set(name, String(value));
  data.set("image", recipe.source as Blob, "picture.png");
  if (recipe.mask !== null) data.set("mask", recipe.mask, "mask.png");
  return data;
}

function eventOf(body: Body): PaintEvent {
  return {
    kind: body.type.endsWith(".completed") ? "picture" : "preview",
    index: body.image_index,
    seed: body.seed,
    step: body.partial_image_index ?? 0,
    blob: fromBase64(body.b64_json, `image/${body.output_format}`),
  };
}
