/** Something that went wrong, in words. */

import { Icon } from "./icons";

interface Props {
  text: string;
  onClose: () => void;
  onRetry: (() => void) | null;
}

export function Notice({ text, onClose, onRetry }: Props) {
  if (text === "") return null;
  return (
    <div class="notice" role="alert">
      <p>{text}</p>
      {onRetry && (
        <button type="button" class="small" onClick={onRetry}>
          <Icon name="repeat" /> Try again
        </button>
      )}
      <button type="button" class="round" aria-label="Close" title="Close" onClick={onClose}>
        <Icon name="close" />
      </button>
    </div>
  );
}
