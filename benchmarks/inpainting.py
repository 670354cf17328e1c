"""How well things of held-out scenes are painted over, and whether all other tokens stay."""

from collections.abc import Iterator

from benchmarks.report import Result
from benchmarks.setting import Setting
from unitok.emoji.evaluation import judge_all
from unitok.emoji.inpainting import REPLACE, EmojiInpaintingSuite, Inpainter
from unitok.evaluation.intervals import wilson
from unitok.evaluation.suite import SuiteOptions

SCENES = 50  # of each kind; in four of the five kinds a thing is replaced


def inpainting(setting: Setting) -> Iterator[Result]:
    """Held-out scenes of the emoji world, in which the embedded model, fp32, as users open it,
    paints another thing in the place of one. The place is the box, and the prompt is one of the
    scene that is wanted. A picture is right if the checker finds in all of it what the prompt says.
    Tokens are compared outside of the box with those of the given picture."""
    suite = EmojiInpaintingSuite(SuiteOptions(limit=setting.either(SCENES, 1)))
    items = [item for item in suite.items() if item.group.startswith(REPLACE)]
    judged = [one.judgement for one in judge_all(Inpainter(setting.api), suite, items)]
    right = sum(bool(one.ok) for one in judged)
    whole = sum(one.error is None for one in judged)
    low, high = wilson(right, len(judged))
    yield Result(
        "embedded model, a thing is painted over: right pictures", 100 * right / len(judged), "%",
        80.0, detail=f"{right} of {len(judged)}, {low:.1%} to {high:.1%}",
    )  # fmt: skip
    yield Result(
        "embedded model, a thing is painted over: pictures whose other tokens all stay",
        100 * whole / len(judged), "%", 100.0, detail=f"{whole} of {len(judged)}",
    )  # fmt: skip
