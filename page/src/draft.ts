/** What the person is about to send. */

import type { Recipe } from "./api/images";
import type { Picture } from "./pictures";
import type { Turn } from "./turns";

export type Mode = "draw" | "ask" | "change";

/** How pictures are made, as it stands in the fields. What is empty is left to the model. */
export interface Settings {
  n: number;
  size: string;
  guidance: string;
  seed: string;
  negative: string;
}

export interface Draft {
  mode: Mode;
  text: string;
  /** The picture that is talked about. */
  about: Picture | null;
  /** The part of it that is to change. */
  mask: Blob | null;
  settings: Settings;
}

export const MAX_PICTURES = 8; // of one drawing

export const EMPTY: Draft = {
  mode: "draw",
  text: "",
  about: null,
  mask: null,
  settings: { n: 1, size: "", guidance: "", seed: "", negative: "" },
};

/** The recipe of a draft. */
export function recipeOf(draft: Draft, model: string): Recipe {
  const { settings, about, mask } = draft;
  const changes = draft.mode === "change";
  return {
    model,
    prompt: draft.text.trim(),
    negative: (!changes && settings.negative.trim()) || null,
    guidance: settings.guidance === "" ? null : Number(settings.guidance),
    size: (!changes && settings.size.trim()) || null,
    source: changes ? (about?.blob ?? null) : null,
    mask: changes ? mask : null,
  };
}

/** The draft that a turn was sent as, with another picture to change if that is gone. */
export function draftOf(turn: Turn, draft: Draft): Draft {
  if (turn.kind === "ask") {
    return { ...draft, mode: "ask", text: turn.question, about: turn.picture, mask: null };
  }
  const { prompt, negative, guidance, size, source, mask } = turn.recipe;
  const settings = {
    ...draft.settings,
    n: turn.cells.length,
    size: size ?? "",
    guidance: guidance === null ? "" : String(guidance),
    negative: negative ?? "",
  };
  if (source === null) return { ...draft, mode: "draw", text: prompt, settings };
  return { ...draft, mode: "change", text: prompt, about: turn.source, mask, settings };
}
