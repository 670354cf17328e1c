/** The page: one conversation, a gallery, and the dialogs over them. */

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { inWords, onKeyNeeded } from "./api/client";
import type { Recipe } from "./api/images";
import { listModels, type ModelInfo } from "./api/models";
import { useChanging } from "./changing";
import { Conversation } from "./conversation";
import { type Draft, draftOf, EMPTY, recipeOf } from "./draft";
import { Gallery } from "./gallery";
import { CameraDialog } from "./parts/camera_dialog";
import { Composer } from "./parts/composer";
import { GalleryView } from "./parts/gallery_view";
import { KeyDialog } from "./parts/key_dialog";
import { MaskDialog } from "./parts/mask_dialog";
import { Notice } from "./parts/notice";
import { PictureDialog } from "./parts/picture_dialog";
import { Thread } from "./parts/thread";
import { Top, type View } from "./parts/top";
import { Welcome } from "./parts/welcome";
import { type Picture, randomSeed, shownPicture } from "./pictures";
import { useShownFiles } from "./shown_files";
import { progressOf, type Turn } from "./turns";

type Over =
  | { kind: "picture"; picture: Picture }
  | { kind: "mask"; picture: Picture }
  | { kind: "camera" }
  | { kind: "key"; message: string; onKey: (key: string | null) => void }
  | null;

export function App() {
  const gallery = useMemo(() => new Gallery(), []);
  const conversation = useMemo(() => new Conversation((picture) => void gallery.keep(picture)), []);
  useChanging(conversation);
  const view = useView();
  const [models, setModels] = useState<ModelInfo[]>([]);
  const [model, setModel] = useState("");
  const [draft, setDraft] = useState<Draft>(EMPTY);
  const [over, setOver] = useState<Over>(null);
  const [notice, setNotice] = useState("");
  const text = useRef<HTMLTextAreaElement>(null);
  const picked = useRef(0); // when the person last chose a picture

  const info = models.find(({ id }) => id === model) ?? null;
  const change = (part: Partial<Draft>) => setDraft((before) => ({ ...before, ...part }));
  const close = () => setOver(null);

  const load = async () => {
    try {
      setNotice("");
      const found = await listModels();
      setModels(found);
      setModel((before) => before || (found[0]?.id ?? ""));
    } catch (error) {
      setNotice(inWords(error));
    }
  };

  const write = (part: Partial<Draft>) => {
    if (view !== "conversation") location.hash = "";
    change(part);
    close();
    requestAnimationFrame(() => text.current?.focus()); // when the dialog has given the focus back
  };

  const pick = (about: Picture, part: Partial<Draft>) => {
    picked.current = Date.now();
    write({ about, mask: null, ...part });
  };

  const paint = async (recipe: Recipe, n: number, seed: number) => {
    if (view !== "conversation") location.hash = "";
    close();
    const turn = await conversation.paint(recipe, n, seed);
    const first = turn.cells.find((cell) => cell.picture !== null)?.picture;
    if (first && picked.current < turn.begun) change({ about: first, mask: null });
  };

  const send = () => {
    const { mode, about, mask, settings } = draft;
    const seed = settings.seed === "" ? randomSeed() : Number(settings.seed);
    if (mode === "change" && about === null) {
      setNotice("Show the picture that is to change first.");
      return;
    }
    if (mode === "change" && about && mask === null && !info?.unitok.follows_instructions) {
      setOver({ kind: "mask", picture: about });
      return;
    }
    setNotice("");
    change({ text: "" });
    if (mode === "ask") void conversation.ask(model, draft.text.trim(), about);
    else void paint(recipeOf(draft, model), settings.n, seed);
  };

  const repeat = (turn: Turn) => {
    if (turn.kind === "ask") void conversation.ask(turn.model, turn.question, turn.picture);
    else void paint(turn.recipe, turn.cells.length, randomSeed());
  };

  const show = async (files: Iterable<Blob>) => {
    const [file, ...others] = files;
    if (file === undefined) return;
    const name = file instanceof File ? file.name : "of the camera";
    try {
      setNotice(others.length ? "One picture is shown at a time: the first one was taken." : "");
      pick(await shownPicture(file, name), draft.mode === "draw" ? { mode: "ask" } : {});
    } catch (error) {
      setNotice(inWords(error));
    }
  };

  useEffect(() => {
    onKeyNeeded((message) => {
      return new Promise((resolve) => {
        const onKey = (key: string | null) => {
          close();
          resolve(key);
        };
        setOver({ kind: "key", message, onKey });
      });
    });
    void load();
    void gallery.load();
  }, []);
  useEffect(() => {
    if (view === "gallery") scrollTo(0, 0);
  }, [view]);
  useEscape(() => conversation.cancelNewest());
  const dropping = useShownFiles((files) => void show(files));

  const newest = conversation.turns.at(-1);
  return (
    <>
      <Top
        view={view}
        models={models}
        model={model}
        onModel={setModel}
        onNew={() => {
          conversation.clear();
          setDraft(EMPTY);
          write({});
        }}
      />
      <main class={view}>
        {view === "gallery" ? (
          <GalleryView gallery={gallery} onOpen={(picture) => setOver({ kind: "picture", picture })} />
        ) : (
          <>
            {conversation.turns.length === 0 ? (
              <Welcome onExample={(prompt) => write({ mode: "draw", text: prompt })} />
            ) : (
              <Thread
                turns={conversation.turns}
                onOpen={(picture) => setOver({ kind: "picture", picture })}
                onCancel={(turn) => conversation.cancel(turn)}
                onRepeat={repeat}
                onReword={(turn) => {
                  picked.current = Date.now();
                  write(draftOf(turn, draft));
                }}
              />
            )}
            <div class="bottom">
              <Notice
                text={notice}
                onClose={() => setNotice("")}
                onRetry={models.length === 0 ? load : null}
              />
              <Composer
                draft={draft}
                model={info}
                text={text}
                onDraft={change}
                onSend={send}
                onFiles={(files) => void show(files)}
                onCamera={() => setOver({ kind: "camera" })}
                onMark={() => draft.about && setOver({ kind: "mask", picture: draft.about })}
              />
            </div>
          </>
        )}
      </main>
      {over?.kind === "picture" && (
        <PictureDialog
          picture={over.picture}
          kept={gallery.has(over.picture)}
          onClose={close}
          onAsk={(picture) => pick(picture, { mode: "ask" })}
          onEdit={(picture) => {
            pick(picture, { mode: "change" });
            setOver({ kind: "mask", picture });
          }}
          onVary={({ recipe }) => recipe && void paint(recipe, draft.settings.n, randomSeed())}
          onAgain={({ recipe, seed }) => recipe && void paint(recipe, 1, seed ?? randomSeed())}
          onDelete={(picture) => {
            close();
            void gallery.remove(picture);
          }}
        />
      )}
      {over?.kind === "mask" && (
        <MaskDialog
          picture={over.picture}
          onMask={(mask) => write({ mask, mode: "change" })}
          onClose={close}
        />
      )}
      {over?.kind === "camera" && (
        <CameraDialog onPicture={(picture) => void show([picture])} onClose={close} />
      )}
      {over?.kind === "key" && <KeyDialog message={over.message} onKey={over.onKey} />}
      {dropping && <div class="drop">Drop the picture to show it</div>}
      <p class="unseen" role="status" aria-live="polite">
        {newest ? progressOf(newest) : ""}
      </p>
    </>
  );
}

/** The view that the address names. */
function useView(): View {
  const named = () => (location.hash === "#gallery" ? "gallery" : "conversation");
  const [view, setView] = useState<View>(named);
  useEffect(() => {
    const look = () => setView(named());
    addEventListener("hashchange", look);
    return () => removeEventListener("hashchange", look);
  }, []);
  return view;
}

/** Do something when Escape is pressed and no dialog is open, which it would close. */
function useEscape(work: () => void): void {
  useEffect(() => {
    const pressed = (event: KeyboardEvent) => {
      if (event.key === "Escape" && document.querySelector("dialog[open]") === null) work();
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  }, []);
}
