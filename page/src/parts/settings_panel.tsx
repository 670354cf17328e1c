/** How pictures are made: how many, how large, how closely, with which seed, and without what. */

import type { ModelInfo } from "../api/models";
import { MAX_PICTURES, type Settings } from "../draft";
import { randomSeed } from "../pictures";
import { Icon } from "./icons";

interface Props {
  id: string;
  model: ModelInfo | null;
  /** Whether a picture is changed, so that its size and what is wanted are given. */
  changes: boolean;
  settings: Settings;
  onSettings: (settings: Settings) => void;
}

export function SettingsPanel({ id, model, changes, settings, onSettings }: Props) {
  const set = (part: Partial<Settings>) => onSettings({ ...settings, ...part });
  const { picture_size, guidance } = model?.unitok ?? { picture_size: "auto", guidance: "" };
  return (
    <fieldset id={id} class="settings">
      <legend class="unseen">Settings of pictures</legend>
      <label class="field">
        <span>Pictures</span>
        <input
          type="number"
          min={1}
          max={MAX_PICTURES}
          required
          value={settings.n}
          onInput={(event) => set({ n: event.currentTarget.valueAsNumber || 1 })}
        />
      </label>
      <label class="field">
        <span>Guidance</span>
        <input
          type="number"
          step="any"
          placeholder={String(guidance)}
          value={settings.guidance}
          onInput={(event) => set({ guidance: event.currentTarget.value })}
        />
      </label>
      <div class="field">
        <label for={`${id}-seed`}>Seed</label>
        <span class="joined">
          <input
            id={`${id}-seed`}
            type="number"
            min={0}
            step={1}
            placeholder="random"
            value={settings.seed}
            onInput={(event) => set({ seed: event.currentTarget.value })}
          />
          <button
            type="button"
            class="round"
            aria-label="Another seed"
            title="Another seed"
            onClick={() => set({ seed: String(randomSeed()) })}
          >
            <Icon name="dice" />
          </button>
        </span>
      </div>
      {!changes && (
        <>
          <label class="field">
            <span>Size</span>
            <input
              type="text"
              pattern="\s*\d+x\d+\s*"
              title="width x height in pixels, such as 512x512"
              placeholder={picture_size}
              value={settings.size}
              onInput={(event) => set({ size: event.currentTarget.value })}
            />
          </label>
          <label class="field long">
            <span>Without (negative prompt)</span>
            <input
              type="text"
              placeholder="nothing"
              value={settings.negative}
              onInput={(event) => set({ negative: event.currentTarget.value })}
            />
          </label>
        </>
      )}
    </fieldset>
  );
}
