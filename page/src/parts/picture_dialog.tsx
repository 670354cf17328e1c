/** A picture, how it was made, and what can be done with it. */

import { fileName, type Picture, scaling } from "../pictures";
import { Icon } from "./icons";
import { Modal } from "./modal";

export interface PictureActions {
  onAsk: (picture: Picture) => void;
  onEdit: (picture: Picture) => void;
  onVary: (picture: Picture) => void;
  onAgain: (picture: Picture) => void;
  onDelete: (picture: Picture) => void;
}

interface Props extends PictureActions {
  picture: Picture;
  kept: boolean;
  onClose: () => void;
}

export function PictureDialog({ picture, kept, onClose, ...actions }: Props) {
  return (
    <Modal title={picture.recipe?.prompt ?? "A picture of yours"} wide onClose={onClose}>
      <div class="look">
        <img
          src={picture.url}
          alt={picture.alt}
          width={picture.width}
          height={picture.height}
          class={scaling(picture)}
        />
        <div class="stack">
          <Facts picture={picture} />
          <div class="actions">
            <button type="button" onClick={() => actions.onAsk(picture)}>
              <Icon name="question" /> Ask about it
            </button>
            <button type="button" onClick={() => actions.onEdit(picture)}>
              <Icon name="edit" /> Change it
            </button>
            {picture.recipe && (
              <>
                <button type="button" onClick={() => actions.onVary(picture)}>
                  <Icon name="vary" /> Vary
                </button>
                <button type="button" onClick={() => actions.onAgain(picture)}>
                  <Icon name="repeat" /> Paint it again
                </button>
              </>
            )}
            <a class="button" href={picture.url} download={fileName(picture)}>
              <Icon name="download" /> Download
            </a>
            {kept && (
              <button type="button" onClick={() => actions.onDelete(picture)}>
                <Icon name="trash" /> Delete
              </button>
            )}
          </div>
        </div>
      </div>
    </Modal>
  );
}

function Facts({ picture }: { picture: Picture }) {
  const { recipe, seed, width, height } = picture;
  const facts: [string, string | number | null][] = [
    ["Seed", seed],
    ["Size", `${width} × ${height}`],
    ["Guidance", recipe?.guidance ?? null],
    ["Without", recipe?.negative ?? null],
    ["Model", recipe?.model ?? null],
    ["Made", recipe && new Date(picture.made).toLocaleString()],
  ];
  return (
    <dl class="facts">
      {facts
        .filter(([, value]) => value !== null)
        .map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
    </dl>
  );
}
