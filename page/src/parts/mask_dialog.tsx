/** Marks the part of a picture that is to change: with the pointer, or by the numbers of a box. */

import { useEffect, useRef, useState } from "preact/hooks";
import { type Box, Mask, type Point } from "../mask";
import { type Picture, scaling } from "../pictures";
import { Modal } from "./modal";

const SIDES = ["left", "top", "right", "bottom"] as const;

interface Props {
  picture: Picture;
  onMask: (mask: Blob) => void;
  onClose: () => void;
}

export function MaskDialog({ picture, onMask, onClose }: Props) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const mask = useRef<Mask | null>(null);
  const last = useRef<Point | null>(null);
  const [brush, setBrush] = useState(16); // hundredths of the shorter side
  const [erase, setErase] = useState(false);
  const [share, setShare] = useState(0);
  const width = (brush / 100) * Math.min(picture.width, picture.height);
  const told = `${Math.round(share * 100)} % of the picture is marked`;
  const advice = share === 1 ? "Leave a part of it as it is, or draw a new one." : "";

  useEffect(() => {
    mask.current = new Mask(canvas.current as HTMLCanvasElement);
  }, []);

  const change = (work: (mask: Mask) => void) => {
    if (mask.current === null) return;
    work(mask.current);
    setShare(mask.current.share);
  };
  const begin = (event: PointerEvent) => {
    canvas.current?.setPointerCapture(event.pointerId);
    const here = (last.current = placeOf(event, picture));
    mask.current?.remember();
    mask.current?.line(here, here, width, erase);
  };
  const go = (event: PointerEvent) => {
    const from = last.current;
    if (from === null) return;
    const here = (last.current = placeOf(event, picture));
    mask.current?.line(from, here, width, erase);
  };
  const end = () => {
    last.current = null;
    change(() => undefined); // the share is counted once a stroke has ended
  };

  return (
    <Modal title="Which part shall change?" wide onClose={onClose}>
      <div class="mask">
        <div class="mask-picture">
          <img src={picture.url} alt={picture.alt} class={scaling(picture)} />
          <canvas
            ref={canvas}
            width={picture.width}
            height={picture.height}
            class={scaling(picture)}
            role="img"
            aria-label={`Marks on the picture: ${told}`}
            onPointerDown={begin}
            onPointerMove={go}
            onPointerUp={end}
            onPointerCancel={end}
          />
        </div>
        <div class="stack">
          <p class="quiet">Paint over the part with the mouse, a pen or a finger.</p>
          <label class="field">
            <span>Brush</span>
            <input
              type="range"
              min={2}
              max={60}
              value={brush}
              onInput={(event) => setBrush(event.currentTarget.valueAsNumber)}
            />
          </label>
          <div class="row">
            <button type="button" aria-pressed={erase} onClick={() => setErase(!erase)}>
              Erase
            </button>
            <button type="button" onClick={() => change((mask) => mask.undo())}>
              Undo
            </button>
            <button
              type="button"
              onClick={() =>
                change((mask) => {
                  mask.remember();
                  mask.clear();
                })
              }
            >
              Clear
            </button>
          </div>
          <BoxFields
            picture={picture}
            onBox={(box) =>
              change((mask) => {
                mask.remember();
                mask.box(box);
              })
            }
          />
          <p class="quiet" role="status">
            {told}. {advice}
          </p>
        </div>
      </div>
      <div class="row end">
        <button
          type="button"
          class="strong"
          disabled={share === 0 || share === 1}
          onClick={async () => mask.current && onMask(await mask.current.asPng())}
        >
          Use this part
        </button>
      </div>
    </Modal>
  );
}

function BoxFields({ picture, onBox }: { picture: Picture; onBox: (box: Box) => void }) {
  const { width, height } = picture;
  const [box, setBox] = useState<Box>({ left: Math.round(width / 2), top: 0, right: width, bottom: height });
  const isEmpty = box.right <= box.left || box.bottom <= box.top;
  return (
    <fieldset class="box">
      <legend>Or a box, in pixels</legend>
      {SIDES.map((side) => (
        <label key={side} class="field">
          <span>{side}</span>
          <input
            type="number"
            min={0}
            max={side === "left" || side === "right" ? width : height}
            value={box[side]}
            onInput={(event) => setBox({ ...box, [side]: event.currentTarget.valueAsNumber || 0 })}
          />
        </label>
      ))}
      <button type="button" disabled={isEmpty} onClick={() => onBox(box)}>
        Mark the box
      </button>
    </fieldset>
  );
}

/** Where the pointer is, in pixels of the picture. */
function placeOf(event: PointerEvent, picture: Picture): Point {
  const shown = (event.currentTarget as HTMLCanvasElement).getBoundingClientRect();
  return {
    x: ((event.clientX - shown.left) / shown.width) * picture.width,
    y: ((event.clientY - shown.top) / shown.height) * picture.height,
  };
}
