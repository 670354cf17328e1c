"""A suite of plain colours, and a model that knows them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from unitok.evaluation.suite import Item, Judgement, Summary, judgement
from unitok.evaluation.tallies import shares
from unitok.requests import Caption, Draw
from unitok.results import DrawResult, Result, TextResult

COLOURS = ("red", "green", "blue", "yellow")


class ColourSuite:
    """Drawings of plain colours, and questions about them."""

    name = "colours"

    def __init__(self, drawings: int = 4, questions: int = 4, seed: int = 0) -> None:
        self.drawings, self.questions, self.seed = drawings, questions, seed

    @property
    def settings(self) -> dict[str, Any]:
        return {"limit": self.drawings, "seed": self.seed}

    def items(self) -> list[Item]:
        drawn = [COLOURS[i % 4] for i in range(self.drawings)]
        asked = [COLOURS[i % 4] for i in range(self.questions)]
        return [
            *(Item(f"d{i}", "draw", Draw(c, seed=i), c) for i, c in enumerate(drawn)),
            *(
                Item(f"q{i}", "ask", Caption(Image.new("RGB", (8, 8), c), question="which?"), c)
                for i, c in enumerate(asked)
            ),
        ]

    def judge(self, item: Item, result: Result) -> Judgement:
        if isinstance(result, TextResult):
            return judgement(item, result.text == item.wanted, result.text)
        right = result.image.tobytes() == Image.new("RGB", (8, 8), item.wanted).tobytes()
        return judgement(item, right, "as wanted" if right else "another colour")

    def summary(self, judged: Sequence[Judgement]) -> Summary:
        return Summary(shares(judged))

    def export(self, judged: Sequence[Judgement], folder: Path) -> None:
        (folder / "official.txt").write_text("\n".join(j.key for j in judged))


class Colourist:
    """Draws the colour that is asked for, and says every colour; wrong or failing where told.

    Results come in another order than requests, two by two.
    """

    name = "colourist"

    def __init__(self, wrong: Sequence[str] = (), fails: Sequence[str] = ()) -> None:
        self.wrong, self.fails, self.asked, self.closed = wrong, fails, [], False

    def run(self, requests: Iterable[Any]) -> Iterator[Result]:
        waiting: list[Result] = []
        for index, request in enumerate(requests):
            waiting.append(self.result(request, index))
            if len(waiting) == 2:
                yield from reversed(waiting)
                waiting.clear()
        yield from waiting

    def result(self, request: Any, index: int) -> Result:
        self.asked.append(request)
        error = "out of paint" if self.colour_of(request) in self.fails else None
        colour = "black" if self.colour_of(request) in self.wrong else self.colour_of(request)
        if isinstance(request, Draw):
            images = () if error else (Image.new("RGB", (8, 8), colour),)
            end = "error" if error else "complete"
            return DrawResult(request.prompt, images, 0, end, 1, 1, 0.0, request, index, error)
        end = "error" if error else "stop"
        return TextResult(colour, 0, end, 1, 1, 0.0, request, index, error)

    def colour_of(self, request: Any) -> str:
        if isinstance(request, Draw):
            return request.prompt
        seen = request.image.getpixel((0, 0))
        return next(c for c in COLOURS if Image.new("RGB", (1, 1), c).getpixel((0, 0)) == seen)

    def close(self) -> None:
        self.closed = True
