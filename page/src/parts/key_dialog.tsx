/** Asks for the key of the server. */

import { useState } from "preact/hooks";
import { Modal } from "./modal";

interface Props {
  message: string;
  onKey: (key: string | null) => void;
}

export function KeyDialog({ message, onKey }: Props) {
  const [key, setKey] = useState("");
  return (
    <Modal title="This server needs a key" onClose={() => onKey(null)}>
      <form
        class="stack"
        onSubmit={(event) => {
          event.preventDefault();
          if (key.trim()) onKey(key.trim());
        }}
      >
        <p class="quiet">
          The server says: {message}. The key stays in this tab, and is forgotten when it closes.
        </p>
        <label class="field">
          <span>API key</span>
          <input
            type="password"
            autocomplete="off"
            value={key}
            onInput={(event) => setKey(event.currentTarget.value)}
          />
        </label>
        <div class="row end">
          <button type="submit" class="strong" disabled={!key.trim()}>
            Use this key
          </button>
        </div>
      </form>
    </Modal>
  );
}
