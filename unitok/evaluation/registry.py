"""The suites by name. Each is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # they import torch, which would delay the command line's help
    from unitok.api import Model
    from unitok.baselines.protocols import Runner
    from unitok.evaluation.suite import Suite, SuiteOptions


@dataclass(frozen=True)
class SuiteEntry:
    """How a suite is made.

    Attributes:
        help: What it asks, in a sentence.
        make: Makes it of options; ValueError or OSError if the data are wrong.
        data: What the user has to name, in a sentence; "" for a suite that brings its own data.
        options: Which of the options of `unitok.evaluation.options.OF_SUITES` it has.
        runner: What takes its requests, if it is not the model itself; such a suite is for our
            models only.
    """

    help: str
    make: Callable[[SuiteOptions], Suite]
    data: str = ""
    options: tuple[str, ...] = ()
    runner: Callable[[Model], Runner] | None = None


def _emoji(options: SuiteOptions) -> Suite:
    from unitok.emoji.evaluation import EmojiSuite

    return EmojiSuite(options)


def _emoji_inpainting(options: SuiteOptions) -> Suite:
    from unitok.emoji.inpainting import EmojiInpaintingSuite

    return EmojiInpaintingSuite(options)


def _inpainter(model: Model) -> Runner:
    from unitok.emoji.inpainting import Inpainter

    return Inpainter(model)


def _emoji_matching(options: SuiteOptions) -> Suite:
    from unitok.emoji.matching import EmojiMatchingSuite

    return EmojiMatchingSuite(options)


def _emoji_presence(options: SuiteOptions) -> Suite:
    from unitok.emoji.presence import EmojiPresenceSuite

    return EmojiPresenceSuite(options)


def _emoji_reconstruction(options: SuiteOptions) -> Suite:
    from unitok.emoji.evaluation import reconstruction_suite

    return reconstruction_suite(options)


def _questions(options: SuiteOptions) -> Suite:
    from unitok.evaluation.questions import QuestionSuite

    return QuestionSuite(options)


def _reconstruction(options: SuiteOptions) -> Suite:
    from unitok.evaluation.reconstruction import folder_suite

    return folder_suite(options)


def _drawings(options: SuiteOptions) -> Suite:
    from unitok.evaluation.drawings import DrawingsSuite

    return DrawingsSuite(options)


def _pope(options: SuiteOptions) -> Suite:
    from unitok.evaluation.public.pope import PopeSuite

    return PopeSuite(options)


def _mme(options: SuiteOptions) -> Suite:
    from unitok.evaluation.public.mme import MmeSuite

    return MmeSuite(options)


def _coco_captions(options: SuiteOptions) -> Suite:
    from unitok.evaluation.public.coco_captions import CocoCaptionsSuite

    return CocoCaptionsSuite(options)


def _geneval(options: SuiteOptions) -> Suite:
    from unitok.evaluation.public.geneval import GenevalSuite

    return GenevalSuite(options)


def _dpg_bench(options: SuiteOptions) -> Suite:
    from unitok.evaluation.public.dpg_bench import DpgBenchSuite

    return DpgBenchSuite(options)


def _reconstructor(model: Model) -> Runner:
    from unitok.evaluation.reconstruction import Reconstructor

    return Reconstructor(model)


SUITES: dict[str, SuiteEntry] = {
    "emoji": SuiteEntry(
        "Drawings, captions and answers of held-out scenes of the emoji world.", _emoji
    ),
    "emoji-inpainting": SuiteEntry(
        "A thing in held-out scenes of the emoji world is painted over with another, or with none.",
        _emoji_inpainting,
        runner=_inpainter,
    ),
    "emoji-presence": SuiteEntry(
        "Whether things are in held-out scenes of the emoji world, in the manner of POPE.",
        _emoji_presence,
    ),
    "emoji-matching": SuiteEntry(
        "Which of ten captions is true of held-out scenes of the emoji world; for a CLIP.",
        _emoji_matching,
    ),
    "emoji-reconstruction": SuiteEntry(
        "What the image tokenizer keeps of scenes of the emoji world: PSNR, SSIM and rFID.",
        _emoji_reconstruction,
        options=("extractor",),
        runner=_reconstructor,
    ),
    "questions": SuiteEntry(
        "Your own pictures with questions or captions and accepted answers, as JSON lines.",
        _questions,
        data="JSON lines with the keys image, question (none for a caption) and answers.",
    ),
    "reconstruction": SuiteEntry(
        "What the image tokenizer keeps of your own pictures: PSNR, SSIM and rFID.",
        _reconstruction,
        data="A folder of pictures.",
        options=("extractor",),
        runner=_reconstructor,
    ),
    "drawings": SuiteEntry(
        "Drawings of your own prompts: FID, KID, Inception Score and CLIPScore.",
        _drawings,
        data="Prompts, one a line, as text or as JSON lines with the key prompt.",
        options=("real", "extractor", "scorer"),
    ),
    "pope": SuiteEntry(
        "POPE: whether a model sees things that are not in pictures of COCO.",
        _pope,
        data="A file such as coco_pope_random.json.",
        options=("images",),
    ),
    "mme": SuiteEntry(
        "MME: yes or no in 14 tasks of perception and cognition.",
        _mme,
        data="The benchmark's folder, or the folder of the eval tool's templates.",
        options=("images",),
    ),
    "coco-captions": SuiteEntry(
        "Captions of COCO: BLEU, ROUGE-L and CIDEr.",
        _coco_captions,
        data="captions_val2014.json, or dataset_coco.json of Karpathy's split.",
        options=("images",),
    ),
    "geneval": SuiteEntry(
        "GenEval: whether drawings hold the things, counts, colours and places of the prompt.",
        _geneval,
        data="evaluation_metadata.jsonl.",
        options=("scorer", "detector"),
    ),
    "dpg-bench": SuiteEntry(
        "DPG-Bench: drawings of long prompts, laid out for its scorer.",
        _dpg_bench,
        data="The folder of the prompts, a text file for each.",
    ),
}
