"""Whether a message asks for a picture, as models here call no tools: a rule of a few words.

A message asks for a picture if it begins, after words of politeness, with

- a verb of drawing: "draw a cat", "could you paint me two dogs?";
- a verb of making and a kind of picture: "generate an image of a cat", "make a blue logo";
- a kind of picture and "of", and is no question: "a watercolour painting of a cat".

It asks for a change of a picture if it begins with a verb of changing: "make it blue", "remove the
hat". All else asks for words.
"""

import re

HEAD = 400  # characters of a message in which its beginning is looked for

_POLITE = (
    r"(?:(?:please|now|then|next|ok|okay|hey|hi|hello|and|also|so|great|nice|thanks)\b[,.!:\s]+)*"
    r"(?:(?:can|could|would|will) you\s+|i (?:want|would like) you to\s+|i'd like you to\s+)?"
    r"(?:please\s+|now\s+)?"
)
_PICTURE = (
    r"(?:picture|image|photo|photograph|drawing|painting|sketch|illustration|portrait|poster|logo|"
    r"icon|wallpaper|artwork)s?\b"
)
_ONE = r"(?:(?:an?|another|one|two|three|four|some)\s+)?"
_KIND = r"(?:(?!(?:of|for|from|about|to|in|on|with|the|this|that)\b)[\w-]{1,30}\s+){0,3}"
_CONTENT = r"(?:of|showing|depicting|with|where|in which|that shows)\b"

_DRAWS = re.compile(
    _POLITE + r"(?:draw|paint|sketch|illustrate)\b(?:\s+(?:me|us)\b)?[:,\s]+(?=\S)", re.IGNORECASE
)
_MAKES = re.compile(
    _POLITE + r"(?:generate|create|make|render|produce|design|imagine|give|show|i want|i'd like)\b"
    rf"(?:\s+(?:me|us)\b)?[:\s]+(?={_ONE}{_KIND}{_PICTURE}(?:\s+{_CONTENT}|\s*[:.!?]|\s*$))",
    re.IGNORECASE,
)
_NAMES = re.compile(rf"(?={_ONE}{_KIND}{_PICTURE}\s+(?:of|showing)\b)", re.IGNORECASE)
_PLAIN = re.compile(
    rf"{_ONE}(?:picture|image)s?\s*(?:{_CONTENT}|:)\s+(?=\S)", re.IGNORECASE
)  # which says nothing of the picture
_CHANGES = re.compile(
    _POLITE + r"(?:make (?:it|him|her|them|this|that|the)|change|edit|modify|remove|erase|delete|"
    r"add|replace|turn|recolou?r|repaint|put|move)\b",
    re.IGNORECASE,
)
_COUNTED = re.compile(r"\b(?:two|three|four|some)\s", re.IGNORECASE)


def wish_of(text: str) -> str | None:
    """What a message asks to be drawn; None if it asks for no picture.

    The wish is the message without the words that only ask: "Could you draw me a picture of a red
    cat, please?" is the wish for "a red cat", in which models know more.

    Args:
        text: The message.
    """
    text = text.strip()
    head = text[:HEAD]
    found = _DRAWS.match(head) or _MAKES.match(head)
    if found is None and not text.endswith("?"):
        found = _NAMES.match(head)
    if found is None:
        return None
    wish = _without_end(text[found.end() :])
    plain = _PLAIN.match(wish[:HEAD])
    if plain is not None and not _COUNTED.match(wish):
        wish = wish[plain.end() :]
    return wish or None


def is_change(text: str) -> bool:
    """Whether a message asks for a change of a picture, as "make it blue" does.

    Args:
        text: The message.
    """
    return _CHANGES.match(text.strip()[:HEAD]) is not None


def _without_end(wish: str) -> str:
    """A wish without the signs at its end, and without a last "please"."""
    wish = wish.rstrip(" \t\r\n.!?")
    if wish.lower().endswith(" please"):
        wish = wish[: -len("please")].rstrip(" ,\t\r\n")
    return wish
