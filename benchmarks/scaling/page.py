"""The tables on the page: each stands between markers of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping

PAGE, PLOT = "scaling_costs.md", "scaling_costs.png"


def filled(text: str, tables: Mapping[str, str]) -> str:
    """A page whose markers have these tables between them.

    Args:
        text: The page. A table stands between `<!-- NAME -->` and `<!-- end of NAME -->`.
        tables: The tables, by name.

    Raises:
        ValueError: A marker is missing, or is there twice.
    """
    for name, table in tables.items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        pattern = f"{re.escape(begin)}.*?{re.escape(end)}"
        made = f"{begin}\n\n{table}\n\n{end}"
        text, count = re.subn(pattern, lambda _, made=made: made, text, flags=re.DOTALL)
        if count != 1:
            raise ValueError(f"the page has {count} times {begin} ... {end}: write it once")
    return text
