/** Where the person writes what to draw, to ask or to change. */

import type { RefObject } from "preact";
import { useId, useRef, useState } from "preact/hooks";
import type { ModelInfo } from "../api/models";
import type { Draft, Mode } from "../draft";
import { Icon, type IconName } from "./icons";
import { SettingsPanel } from "./settings_panel";
import { Thumb } from "./thumb";

const MODES: { mode: Mode; word: string; icon: IconName; hint: string }[] = [
  { mode: "draw", word: "Draw", icon: "plus", hint: "What shall I draw?" },
  { mode: "ask", word: "Ask", icon: "question", hint: "Ask about the picture, or anything" },
  { mode: "change", word: "Change", icon: "edit", hint: "What shall the picture show now?" },
];

interface Props {
  draft: Draft;
  model: ModelInfo | null;
  text: RefObject<HTMLTextAreaElement | null>;
  onDraft: (part: Partial<Draft>) => void;
  onSend: () => void;
  onFiles: (files: Iterable<File>) => void;
  onCamera: () => void;
  onMark: () => void;
}

export function Composer({ draft, model, text, onDraft, onSend, ...actions }: Props) {
  const [open, setOpen] = useState(false);
  const form = useRef<HTMLFormElement>(null);
  const panel = useId();
  const { word, hint } = MODES.find(({ mode }) => mode === draft.mode)!;
  const paints = draft.mode !== "ask";
  return (
    <form
      ref={form}
      class="composer"
      aria-label="Your turn"
      onSubmit={(event) => {
        event.preventDefault();
        onSend();
      }}
    >
      <Modes mode={draft.mode} onMode={(mode) => onDraft({ mode })} />
      {draft.mode !== "draw" && <About draft={draft} onDraft={onDraft} onMark={actions.onMark} />}
      <textarea
        ref={text}
        rows={1}
        aria-label={hint}
        placeholder={hint}
        enterkeyhint="send"
        value={draft.text}
        onInput={(event) => onDraft({ text: event.currentTarget.value })}
        onKeyDown={(event) => {
          if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
          event.preventDefault();
          form.current?.requestSubmit();
        }}
      />
      <div class="tools">
        <FileButton onFiles={actions.onFiles} />
        {"mediaDevices" in navigator && (
          <Tool icon="camera" word="Take a picture" onClick={actions.onCamera} />
        )}
        {paints && (
          <button
            type="button"
            class="round"
            aria-label="Settings"
            title="Settings"
            aria-expanded={open}
            aria-controls={panel}
            onClick={() => setOpen(!open)}
          >
            <Icon name="settings" />
          </button>
        )}
        <button type="submit" class="strong send" disabled={model === null || !draft.text.trim()}>
          {word} <Icon name="send" />
        </button>
      </div>
      {paints && open && (
        <SettingsPanel
          id={panel}
          model={model}
          changes={draft.mode === "change"}
          settings={draft.settings}
          onSettings={(settings) => onDraft({ settings })}
        />
      )}
    </form>
  );
}

function Modes({ mode, onMode }: { mode: Mode; onMode: (mode: Mode) => void }) {
  return (
    <fieldset class="modes">
      <legend class="unseen">What to do</legend>
      {MODES.map((one) => (
        <label key={one.mode}>
          <input
            type="radio"
            name="mode"
            value={one.mode}
            checked={mode === one.mode}
            onChange={() => onMode(one.mode)}
          />
          <span>
            <Icon name={one.icon} /> {one.word}
          </span>
        </label>
      ))}
    </fieldset>
  );
}

interface AboutProps {
  draft: Draft;
  onDraft: (part: Partial<Draft>) => void;
  onMark: () => void;
}

function About({ draft, onDraft, onMark }: AboutProps) {
  const { about, mask, mode } = draft;
  if (about === null) {
    const wanted = mode === "change" ? "Show a picture first" : "No picture yet: show one";
    return <p class="about quiet">{wanted}, by dropping, pasting or choosing it.</p>;
  }
  return (
    <div class="about">
      <Thumb picture={about} mask={mode === "change" ? mask : null} />
      <span class="about-words">{about.alt}</span>
      {mode === "change" && (
        <button type="button" class="small" onClick={onMark}>
          <Icon name="edit" /> {mask ? "Mark anew" : "Mark a part"}
        </button>
      )}
      <Tool
        icon="close"
        word="Leave this picture out"
        onClick={() => onDraft({ about: null, mask: null })}
      />
    </div>
  );
}

function FileButton({ onFiles }: { onFiles: (files: Iterable<File>) => void }) {
  const input = useRef<HTMLInputElement>(null);
  return (
    <>
      <Tool icon="picture" word="Show a picture" onClick={() => input.current?.click()} />
      <input
        ref={input}
        type="file"
        accept="image/*"
        hidden
        onChange={(event) => {
          onFiles(event.currentTarget.files ?? []);
          event.currentTarget.value = ""; // so that the same file can be chosen again
        }}
      />
    </>
  );
}

function Tool({ icon, word, onClick }: { icon: IconName; word: string; onClick: () => void }) {
  return (
    <button type="button" class="round" aria-label={word} title={word} onClick={onClick}>
      <Icon name={icon} />
    </button>
  );
}
