"""unitok: models that describe pictures and draw them, with one sequence of tokens.

import unitok
model = unitok.load()
model.caption("scene.png").text
model.draw("two apples on a blue background", seed=7).image.save("apples.png")
"""

from importlib import import_module
from logging import NullHandler, getLogger
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unitok.api import Info, Model
    from unitok.backends.ray.api import run_dataset
    from unitok.backends.ray.report import DatasetReport, FailedLine, ReplicaReport
    from unitok.chat import Chat
    from unitok.loading import load
    from unitok.picture_info import read_info
    from unitok.requests import Caption, Draw, Edit, Reply
    from unitok.results import DrawResult, Event, Picture, Result, ScoreResult, TextResult
    from unitok.stats import Stats

getLogger(__name__).addHandler(NullHandler())  # logs are shown only to those who ask for them

__version__ = "0.1.0"
__all__ = [
    "Caption",
    "Chat",
    "DatasetReport",
    "Draw",
    "DrawResult",
    "Edit",
    "Event",
    "FailedLine",
    "Info",
    "Model",
    "Picture",
    "ReplicaReport",
    "Reply",
    "Result",
    "ScoreResult",
    "Stats",
    "TextResult",
    "load",
    "read_info",
    "run_dataset",
]
_PLACES = {
    "Caption": "requests",
    "Chat": "chat",
    "DatasetReport": "backends.ray.report",
    "Draw": "requests",
    "DrawResult": "results",
    "Edit": "requests",
    "Event": "results",
    "FailedLine": "backends.ray.report",
    "Info": "api",
    "Model": "api",
    "Picture": "results",
    "ReplicaReport": "backends.ray.report",
    "Reply": "requests",
    "Result": "results",
    "ScoreResult": "results",
    "Stats": "stats",
    "TextResult": "results",
    "load": "loading",
    "read_info": "picture_info",
    "run_dataset": "backends.ray.api",
}


def __getattr__(name: str) -> object:
    """Import torch only when a name is used, so that `unitok --help` answers at once."""
    if name not in _PLACES:
        raise AttributeError(f"module 'unitok' has no attribute {name!r}")
    return getattr(import_module(f"unitok.{_PLACES[name]}"), name)
