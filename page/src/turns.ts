/** The turns of a conversation: pictures that are painted, and questions that are answered. */

import type { Recipe } from "./api/images";
import type { Picture } from "./pictures";

export type State = "waiting" | "running" | "done" | "failed" | "cancelled";

interface Common {
  id: string;
  state: State;
  /** How many requests wait; null if that is not known. */
  ahead: number | null;
  /** What went wrong, in words. */
  failure: string;
  /** Milliseconds since 1970. */
  begun: number;
  abort: AbortController;
}

/** One of the pictures of a turn. */
export interface Cell {
  seed: number;
  /** The address of the last preview. */
  preview: string | null;
  /** How many previews there were. */
  step: number;
  picture: Picture | null;
}

export interface PaintTurn extends Common {
  kind: "paint";
  recipe: Recipe;
  /** The picture that is changed; null for a new one. */
  source: Picture | null;
  cells: Cell[];
}

export interface AskTurn extends Common {
  kind: "ask";
  model: string;
  question: string;
  picture: Picture | null;
  answer: string;
}

export type Turn = PaintTurn | AskTurn;

/** Whether a turn goes on. */
export function isOpen(turn: Turn): boolean {
  return turn.state === "waiting" || turn.state === "running";
}

/** What the person has said. */
export function saidIn(turn: Turn): string {
  return turn.kind === "paint" ? turn.recipe.prompt : turn.question;
}

/** How far a turn is, in words. */
export function progressOf(turn: Turn): string {
  if (turn.state === "failed") return `Failed: ${turn.failure}`;
  if (turn.state === "cancelled") return "Cancelled.";
  if (turn.state === "waiting") return waitingWords(turn.ahead);
  if (turn.kind === "ask") return turn.state === "done" ? turn.answer : "Answering …";
  const ready = turn.cells.filter((cell) => cell.picture !== null).length;
  const many = turn.cells.length > 1;
  if (turn.state === "done") return `Painted: ${turn.recipe.prompt}`;
  return many ? `Painting, ${ready} of ${turn.cells.length} are ready …` : "Painting …";
}

function waitingWords(ahead: number | null): string {
  if (ahead === null || ahead === 0) return "Working …";
  return `Waiting, ${ahead} ${ahead === 1 ? "request is" : "requests are"} ahead …`;
}
