/** The conversation: what was asked for, and what came of it. */

import { useEffect } from "preact/hooks";
import { type Picture, scaling } from "../pictures";
import { type AskTurn, type Cell, isOpen, type PaintTurn, progressOf, saidIn, type Turn } from "../turns";
import { previewsOf } from "../api/images";
import { Icon } from "./icons";
import { Thumb } from "./thumb";

const NEAR = 200; // pixels from the end, within which the page follows what is new

export interface TurnActions {
  onOpen: (picture: Picture) => void;
  onCancel: (turn: Turn) => void;
  onRepeat: (turn: Turn) => void;
  onReword: (turn: Turn) => void;
}

interface Props extends TurnActions {
  turns: Turn[];
}

export function Thread({ turns, ...actions }: Props) {
  useEffect(() => {
    const page = document.documentElement;
    const below = page.scrollHeight - page.scrollTop - page.clientHeight;
    if (below < NEAR) scrollToEnd();
  });
  useEffect(scrollToEnd, [turns.length]);
  return (
    <ol class="thread" aria-label="Conversation">
      {turns.map((turn) => (
        <li key={turn.id} class="turn">
          <Said turn={turn} />
          {turn.kind === "paint" ? (
            <Painted turn={turn} onOpen={actions.onOpen} />
          ) : (
            <Answer turn={turn} />
          )}
          <After turn={turn} {...actions} />
        </li>
      ))}
    </ol>
  );
}

function scrollToEnd(): void {
  scrollTo(0, document.documentElement.scrollHeight);
}

function Said({ turn }: { turn: Turn }) {
  const picture = turn.kind === "paint" ? turn.source : turn.picture;
  const mask = turn.kind === "paint" ? turn.recipe.mask : null;
  return (
    <div class="said">
      {picture && <Thumb picture={picture} mask={mask} />}
      <p>
        <span class="unseen">
          {turn.kind === "ask" ? "You asked: " : turn.recipe.source ? "To change: " : "To draw: "}
        </span>
        {saidIn(turn)}
      </p>
    </div>
  );
}

function Painted({ turn, onOpen }: { turn: PaintTurn; onOpen: (picture: Picture) => void }) {
  const shown = turn.cells.filter((cell) => isOpen(turn) || cell.picture !== null);
  if (shown.length === 0) return null;
  return (
    <div class={`cells of-${Math.min(turn.cells.length, 5)}`}>
      {shown.map((cell, i) => (
        <PaintedCell key={cell.seed} cell={cell} turn={turn} number={i + 1} onOpen={onOpen} />
      ))}
    </div>
  );
}

interface CellProps {
  cell: Cell;
  turn: PaintTurn;
  number: number;
  onOpen: (picture: Picture) => void;
}

function PaintedCell({ cell, turn, number, onOpen }: CellProps) {
  const { picture } = cell;
  const previews = previewsOf(turn.recipe);
  if (picture !== null) {
    return (
      <button type="button" class="frame" title="Look closer" onClick={() => onOpen(picture)}>
        <img src={picture.url} alt={picture.alt} class={`done ${scaling(picture)}`} />
      </button>
    );
  }
  return (
    <div class="frame unfinished">
      {cell.preview !== null ? (
        <img src={cell.preview} alt={`${turn.recipe.prompt}, unfinished`} class="pixels" />
      ) : (
        turn.source && <img src={turn.source.url} alt="" class={`before ${scaling(turn.source)}`} />
      )}
      {previews > 0 && (
        <progress
          max={previews + 1}
          value={cell.step}
          aria-label={`Progress of picture ${number}`}
        />
      )}
    </div>
  );
}

function Answer({ turn }: { turn: AskTurn }) {
  if (turn.answer === "" && turn.state !== "done") return null;
  return <p class="answer">{turn.answer || "(no words)"}</p>;
}

function After({ turn, ...actions }: { turn: Turn } & TurnActions) {
  const failed = turn.state === "failed";
  const said = isOpen(turn) || failed || turn.state === "cancelled";
  return (
    <div class="after">
      {said && <p class={failed ? "failure" : "quiet"}>{progressOf(turn)}</p>}
      {isOpen(turn) ? (
        <button type="button" class="small" onClick={() => actions.onCancel(turn)}>
          <Icon name="stop" /> Cancel
        </button>
      ) : (
        <>
          <button type="button" class="small" onClick={() => actions.onRepeat(turn)}>
            <Icon name="repeat" /> {turn.kind === "paint" && !failed ? "Other seeds" : "Try again"}
          </button>
          <button type="button" class="small" onClick={() => actions.onReword(turn)}>
            <Icon name="edit" /> Reword
          </button>
        </>
      )}
    </div>
  );
}
