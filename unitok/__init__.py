"""unitok: models that read pictures and paint them with one line of tokens.

import unitok
model = unitok.load()
model.caption("scene.png").text
model.draw("two apples on a blue background", seed=7).image.save("apples.png")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unitok.api import Caption, Chat, Draw, DrawResult, Info, Model, TextResult, load

__version__ = "0.1.0"
__all__ = ["Caption", "Chat", "Draw", "DrawResult", "Info", "Model", "TextResult", "load"]


def __getattr__(name: str) -> Any:
    """Import torch only when something is used, so that `unitok --help` answers at once."""
    if name not in __all__:
        raise AttributeError(f"module 'unitok' has no attribute {name!r}")
    return getattr(import_module("unitok.api"), name)
