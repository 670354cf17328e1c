/** What stands where nothing was said yet. */

import { Logo } from "./icons";

const EXAMPLES = [
  "two apples on a blue background",
  "a cat left of a dog",
  "three lemons on a pink background",
  "a rocket above a house",
];

export function Welcome({ onExample }: { onExample: (prompt: string) => void }) {
  return (
    <section class="welcome">
      <Logo />
      <h2>Draw, ask, change.</h2>
      <p class="quiet">
        Say what to draw, or show a picture: drop it, paste it, choose a file or take one.
      </p>
      <ul class="examples">
        {EXAMPLES.map((prompt) => (
          <li key={prompt}>
            <button type="button" onClick={() => onExample(prompt)}>
              {prompt}
            </button>
          </li>
        ))}
      </ul>
    </section>
  );
}
