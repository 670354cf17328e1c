/** Light or dark: as the system has it, until the person chooses. */

import { recall, remember } from "./storage";

const NAME = "unitok-theme";

export type Theme = "light" | "dark";

/** The theme that is shown. */
export function currentTheme(): Theme {
  const chosen = document.documentElement.dataset["theme"];
  if (chosen === "light" || chosen === "dark") return chosen;
  return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}

/** Show the theme that the person chose before. */
export function restoreTheme(): void {
  const chosen = recall("browser", NAME);
  if (chosen !== null) document.documentElement.dataset["theme"] = chosen;
}

/** Choose a theme, for this and later visits. */
export function chooseTheme(theme: Theme): void {
  document.documentElement.dataset["theme"] = theme;
  remember("browser", NAME, theme);
}
