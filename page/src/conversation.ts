/** One conversation, in which one draws, asks and corrects. */

import { ask, type Exchange } from "./api/chat";
import { Failure, inWords, isAbort } from "./api/client";
import { type PaintEvent, paint, type Recipe } from "./api/images";
import { waitingRequests } from "./api/models";
import { Changing } from "./changing";
import { drawnPicture, newId, type Picture, shownPicture } from "./pictures";
import { type AskTurn, isOpen, type PaintTurn, type Turn } from "./turns";

const LOOK = 1000; // milliseconds between looks at the queue
const MAX_EXCHANGES = 10; // earlier questions that are told again with a new one

export class Conversation extends Changing {
  turns: Turn[] = [];

  /** @param keep What is done with each new picture. */
  constructor(private readonly keep: (picture: Picture) => void) {
    super();
  }

  /** Paint pictures. The first has the seed, and each other one the next number. */
  async paint(recipe: Recipe, n: number, seed: number): Promise<PaintTurn> {
    const source = recipe.source && (await shownPicture(recipe.source, "before"));
    const cells = Array.from({ length: n }, (_, i) => {
      return { seed: seed + i, preview: null, step: 0, picture: null };
    });
    const turn: PaintTurn = { kind: "paint", recipe, source, cells, ...this.common() };
    await this.run(turn, async () => {
      for await (const event of paint(recipe, n, seed, turn.abort.signal)) {
        await this.takeEvent(turn, event);
      }
      if (turn.cells.some((cell) => cell.picture === null)) {
        throw new Failure("The server sent fewer pictures than were asked for.");
      }
    });
    return turn;
  }

  /** Ask a question, about a picture or without one. */
  async ask(model: string, question: string, picture: Picture | null): Promise<void> {
    const before = this.exchangesAbout(picture);
    const turn: AskTurn = {
      ...{ kind: "ask", model, question, picture, answer: "" },
      ...this.common(),
    };
    await this.run(turn, async () => {
      const pieces = ask(model, question, picture?.blob ?? null, before, turn.abort.signal);
      for await (const piece of pieces) {
        turn.state = "running";
        turn.answer += piece;
        this.changed();
      }
    });
  }

  /** Cancel a turn. What has come of it stays. */
  cancel(turn: Turn): void {
    turn.abort.abort();
  }

  /** Cancel the newest turn that goes on. Gives whether there was one. */
  cancelNewest(): boolean {
    const turn = this.turns.findLast(isOpen);
    if (turn) this.cancel(turn);
    return turn !== undefined;
  }

  /** Forget all turns. */
  clear(): void {
    for (const turn of this.turns.filter(isOpen)) this.cancel(turn);
    this.turns = [];
    this.changed();
  }

  private async takeEvent(turn: PaintTurn, event: PaintEvent): Promise<void> {
    const cell = turn.cells[event.index];
    if (cell === undefined) throw new Failure("The server sent more pictures than were asked for.");
    turn.state = "running";
    const before = cell.preview; // it stays until there is something better
    if (event.kind === "preview") {
      cell.preview = URL.createObjectURL(event.blob);
      cell.step = event.step + 1;
    } else {
      cell.seed = event.seed;
      cell.picture = await drawnPicture(event.blob, turn.recipe, event.seed);
      cell.preview = null;
      this.keep(cell.picture);
    }
    this.changed();
    if (before !== null) URL.revokeObjectURL(before);
  }

  private async run(turn: Turn, work: () => Promise<void>): Promise<void> {
    this.turns = [...this.turns, turn];
    this.changed();
    try {
      turn.ahead = await waitingRequests(turn.abort.signal);
      this.changed();
      void this.watchQueue(turn);
      await work();
      turn.state = "done";
    } catch (error) {
      turn.state = isAbort(error) ? "cancelled" : "failed";
      turn.failure = inWords(error);
    }
    this.changed();
  }

  /** Note how many requests are ahead of a turn until it begins. They never become more. */
  private async watchQueue(turn: Turn): Promise<void> {
    const own = turn.kind === "paint" ? turn.cells.length : 1; // which wait too
    try {
      for (;;) {
        await new Promise((resolve) => setTimeout(resolve, LOOK));
        if (turn.state !== "waiting") return;
        const others = Math.max(0, (await waitingRequests(turn.abort.signal)) - own);
        turn.ahead = Math.min(others, turn.ahead ?? others);
        this.changed();
      }
    } catch {
      turn.ahead = null; // the turn itself says what is wrong
    }
  }

  private exchangesAbout(picture: Picture | null): Exchange[] {
    const about = this.turns.filter((turn): turn is AskTurn => {
      return turn.kind === "ask" && turn.state === "done" && turn.picture?.id === picture?.id;
    });
    return about.slice(-MAX_EXCHANGES);
  }

  private common() {
    const [state, ahead, failure, begun] = ["waiting" as const, null, "", Date.now()];
    return { id: newId(), state, ahead, failure, begun, abort: new AbortController() };
  }
}
