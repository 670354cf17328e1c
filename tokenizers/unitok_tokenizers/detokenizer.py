"""Token ids to text while the ids come in."""

from collections.abc import Sequence

from unitok_tokenizers.text_backend import TextBackend

REPLACEMENT = "\ufffd"  # What decoders write for bytes that are not (yet) a character.


class Detokenizer:
    """Decodes token ids as they come. Make one with `TextTokenizer.stream`.

    All that `push` and `finish` return, joined, is the text of all ids. A token id may carry a part
    of a character, and a decoder may drop the space before the first word. So each step decodes the
    new ids together with the last ones that gave text, and returns what the new ones add. Text that
    ends in an unfinished character is held back.

    Args:
        backend: Decodes the ids.
        skip_special: Whether special tokens give no text.
    """

    def __init__(self, backend: TextBackend, skip_special: bool = True):
        self._backend = backend
        self._skip_special = skip_special
        self._context: list[int] = []  # Returned already; decoded again for what comes after.
        self._pending: list[int] = []  # Not yet returned.

    def push(self, ids: Sequence[int]) -> str:
        """Take the next token ids.

        Returns:
            The text that they complete, which may be empty.
        """
        self._pending.extend(ids)
        if self._is_unsettled():
            return ""
        text = self._decode_pending()
        return "" if text.endswith(REPLACEMENT) else self._release(text)

    def finish(self) -> str:
        """Return the rest of the text, where an unfinished character becomes U+FFFD."""
        return self._release(self._decode_pending())

    def _is_unsettled(self) -> bool:
        """Whether the last id that gives text is one whose text may still change."""
        for i in reversed(self._pending):
            if i in self._backend.unsettled:
                return True
            if self._decode([i]):
                return False
        return False

    def _decode_pending(self) -> str:
        before = self._decode(self._context)
        return self._decode(self._context + self._pending)[len(before) :]

    def _release(self, text: str) -> str:
        """The text, whose ids become the context of the next."""
        if text:
            # By themselves, spaces may give no text, and would then not keep the next ones.
            is_enough = bool(self._decode(self._pending))
            self._context = self._pending if is_enough else self._context + self._pending
            self._pending = []
        return text

    def _decode(self, ids: list[int]) -> str:
        return self._backend.decode(ids, self._skip_special)
