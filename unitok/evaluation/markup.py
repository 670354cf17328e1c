"""HTML whose text is escaped: only what `element` makes is markup."""

from __future__ import annotations

from html import escape
from pathlib import Path

STYLE = Path(__file__).with_name("report.css")
# Nothing is fetched and nothing is run, even if a text got through.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
EMPTY_TAGS = ("img", "meta", "line", "rect")


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Child = str | Markup
Attribute = str | int | float


def element(tag: str, *children: Child, **attributes: Attribute) -> Markup:
    """An element. Text among the children is escaped, and so are the values of attributes.

    Args:
        tag: Its name.
        *children: Text, and other elements.
        **attributes: Values by name; "_" in a name stands for "-", and one at its end for nothing,
            as in `class_`.
    """
    given = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(shown(str(value)))}"'
        for name, value in attributes.items()
    )
    if tag in EMPTY_TAGS:
        return Markup(f"<{tag}{given}>" if tag in ("img", "meta") else f"<{tag}{given}/>")
    return Markup(f"<{tag}{given}>{joined(*children)}</{tag}>")


def joined(*children: Child) -> Markup:
    """Elements and escaped text, one after another."""
    return Markup("".join(c if isinstance(c, Markup) else escape(shown(c)) for c in children))


def shown(text: str) -> str:
    """Text that UTF-8 can hold; half characters, as the names of files may have, are escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def page(title: str, *sections: Child) -> str:
    """A whole page, which holds all that it shows."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("title", title),
        element("style", Markup(STYLE.read_text(encoding="utf-8"))),
    )
    body = element("body", *sections)
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def table(columns: tuple[str, ...], rows: list[tuple[object, ...]]) -> Markup:
    """A table. Numbers stand at the right, and columns that hold nothing are left out."""
    full = [i for i in range(len(columns)) if any(row[i] is not None for row in rows)]
    columns, rows = tuple(columns[i] for i in full), [tuple(row[i] for i in full) for row in rows]
    head = element(
        "tr", *(cell("th", name, _has_numbers(rows, i)) for i, name in enumerate(columns))
    )
    body = (element("tr", *(cell("td", value, is_number(value)) for value in row)) for row in rows)
    return element("div", element("table", head, *body), class_="wide")


def cell(tag: str, value: object, number: bool) -> Markup:
    """A cell, empty for None."""
    child = value if isinstance(value, Markup) else number_text(value)
    return element(tag, child, class_="number") if number else element(tag, child)


def is_number(value: object) -> bool:
    """Whether a cell holds a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def number_text(value: object) -> str:
    """A cell's text: numbers with at most four digits behind the point."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4f}".rstrip("0").rstrip(".")
    return f"{value:,}" if is_number(value) else str(value)


def _has_numbers(rows: list[tuple[object, ...]], column: int) -> bool:
    return any(is_number(row[column]) for row in rows)
