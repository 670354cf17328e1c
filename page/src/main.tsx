import { render } from "preact";
import { App } from "./app";
import { restoreTheme } from "./theme";

restoreTheme();
const place = document.getElementById("page") as HTMLElement;
place.replaceChildren();
render(<App />, place);
