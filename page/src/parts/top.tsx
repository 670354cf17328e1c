/** The line at the top: where one is, which model answers, and how the page looks. */

import { useState } from "preact/hooks";
import type { ModelInfo } from "../api/models";
import { chooseTheme, currentTheme } from "../theme";
import { Icon, Logo } from "./icons";

export type View = "conversation" | "gallery";

interface Props {
  view: View;
  models: ModelInfo[];
  model: string;
  onModel: (id: string) => void;
  onNew: () => void;
}

export function Top({ view, models, model, onModel, onNew }: Props) {
  return (
    <header class="top">
      <h1>
        <Logo /> unitok
      </h1>
      <nav aria-label="Views">
        <a href="#" aria-current={view === "conversation" ? "page" : undefined}>
          <Icon name="question" /> <span>Conversation</span>
        </a>
        <a href="#gallery" aria-current={view === "gallery" ? "page" : undefined}>
          <Icon name="gallery" /> <span>Gallery</span>
        </a>
      </nav>
      {models.length > 1 && (
        <select
          aria-label="Model"
          value={model}
          onChange={(event) => onModel(event.currentTarget.value)}
        >
          {models.map(({ id }) => (
            <option key={id}>{id}</option>
          ))}
        </select>
      )}
      <button
        type="button"
        class="round"
        aria-label="New conversation"
        title="New conversation"
        onClick={onNew}
      >
        <Icon name="plus" />
      </button>
      <ThemeSwitch />
    </header>
  );
}

function ThemeSwitch() {
  const [theme, setTheme] = useState(currentTheme);
  const other = theme === "dark" ? "light" : "dark";
  return (
    <button
      type="button"
      class="round"
      role="switch"
      aria-checked={theme === "dark"}
      aria-label="Dark mode"
      title="Dark mode"
      onClick={() => {
        chooseTheme(other);
        setTheme(other);
      }}
    >
      <Icon name={theme === "dark" ? "sun" : "moon"} />
    </button>
  );
}
