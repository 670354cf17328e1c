"""Check released weights of Janus or Janus-Pro: what can be known of them without a reference.

    python scripts/check_release.py FOLDER
    python scripts/check_release.py FOLDER --picture the-big-dipper-1.jpg --device cuda

FOLDER may be a hub id, such as deepseek-community/Janus-Pro-1B. It is loaded strictly; then:

1. the tokens of Janus have ids, and the published ones have the published ids; BOS comes first;
2. text is the same after encoding and decoding;
3. the rows of the codebook have unit norm (if not, transformers' JanusVQVAE encodes pictures
   otherwise than the original does; unitok does not);
4. Janus-Pro-1B on CUDA draws the image tokens, and says of a picture the words, that transformers'
   own tests expect (tests/models/janus/test_modeling_janus.py). The picture is the-big-dipper-1.jpg
   of nineplanets.org/wp-content/uploads/2020/12; any other is only described and encoded.

It prints a line per check; the exit code is 1 if one failed. A check that cannot be run says why.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import unitok
from unitok.api import Model
from unitok.families.janus import Janus
from unitok.families.janus.files import SYSTEM
from unitok.families.janus.prompts import PRO_ROLES
from unitok.nn.config import JANUS_PRO_1B, JanusConfig
from unitok.pictures import open_picture
from unitok.prompt import PromptBuilder
from unitok_engine import Branch, FixedPlan, FreePlan, IdRange, Request, Sampling

PUBLISHED_IDS = {  # of the released vocabulary of 102,400
    "<｜begin▁of▁sentence｜>": 100000,
    "<｜end▁of▁sentence｜>": 100001,
    "<｜▁pad▁｜>": 100015,
    "<image_placeholder>": 100581,
}
RELEASED_VOCABULARY = 102400
TEXTS = ("hello, how are you?", "图片里有什么？", "a 🐈\n\tleft of 12 houses", "  spaces  ")
PROMPT = "A portrait of young girl. masterpiece, film grained, best quality."
DRAWN = """4484 4015 15750 506 3758 11651 8597 5739 4861 971 14985 14834 15438 7548 1820 1465 13529
    12761 10503 12761"""
QUESTION = "Describe what do you see here and tell me about the history behind it?"
SAID = 'The image depicts the constellation of Leo, which is often referred to as the "Lion"'


@dataclass(frozen=True)
class Check:
    """What one check found.

    Attributes:
        name: What was checked.
        passed: Whether it is right; None if it could not be run, or is only to be looked at.
        found: What was found, in words.
    """

    name: str
    passed: bool | None
    found: str

    def __str__(self) -> str:
        verdict = {True: "passed", False: "FAILED", None: "-"}[self.passed]
        return f"{verdict:7} {self.name}: {self.found}"


def main() -> None:
    """Load the folder, and print all checks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder")
    parser.add_argument("--picture", type=Path, help="file of the picture to describe")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32", help="in which the results are compared")
    args = parser.parse_args()
    try:
        model = unitok.load(args.folder, device=args.device, dtype=args.dtype, strict=True)
        picture = open_picture(args.picture) if args.picture else None
    except (ValueError, OSError) as error:
        sys.exit(f"check_release: {error}")
    sys.exit(0 if report(model, picture) else 1)


def report(model: Model, picture: Image.Image | None) -> bool:
    """Print all checks, and return whether none failed."""
    family = model.family
    if not isinstance(family, Janus):
        sys.exit(f"check_release: {family.name} is not Janus; this script checks Janus alone")
    info = model.info()
    print(f"{info.name}: {info.parameters / 1e9:.2f} billion parameters, {info.dtype}, loaded")
    good = True
    for check in checks(model, family, picture):
        print(check, flush=True)
        good = good and check.passed is not False
    return good


def checks(model: Model, family: Janus, picture: Image.Image | None) -> Iterator[Check]:
    """All checks, in order."""
    yield tokens_are_there(family)
    yield bos_comes_first(family)
    yield text_comes_back(family)
    yield codebook_is_unit(family)
    yield draws_as_published(model, family)
    yield says_as_published(model, family, picture)
    if picture is not None:
        yield picture_comes_back(family, picture)


def tokens_are_there(family: Janus) -> Check:
    """The special tokens exist, with their published ids if this is the released vocabulary."""
    t = family.template
    names = (t.bos, t.eos, t.pad, t.placeholder, t.begin_of_image, t.end_of_image)
    ids = {name: family.tokenizer.id(name) for name in names}
    found = (
        ", ".join(f"{name} {id}" for name, id in ids.items()) + f"; roles {t.user}, {t.assistant}"
    )
    if family.model.config.decoder.vocab_size != RELEASED_VOCABULARY:
        return Check("tokens", True, found)
    return Check("tokens", ids.items() >= PUBLISHED_IDS.items(), found)


def bos_comes_first(family: Janus) -> Check:
    """The tokenizer begins with BOS: without it guidance fails, and a release of 2024 lacked it."""
    ids = family.tokenizer.encode("a cat", add_special=True)
    good = ids[0] == family.tokenizer.id(family.template.bos)
    return Check("BOS", good, "added by the tokenizer" if good else "the tokenizer adds none")


def text_comes_back(family: Janus) -> Check:
    """Texts of several kinds are the same after encoding and decoding."""
    words = family.tokenizer
    lost = [text for text in TEXTS if words.decode(words.encode_plain(text)) != text]
    return Check("text round trip", not lost, f"lost {lost!r}" if lost else "exact")


def codebook_is_unit(family: Janus) -> Check:
    """How far the rows of the codebook are from unit norm."""
    norms = family.model.image_tokenizer.quantizer.codebook.float().norm(dim=-1)
    off = float((norms - 1).abs().max())
    verdict = "unit" if off < 1e-3 else "not unit: transformers would encode pictures otherwise"
    return Check("codebook rows", None, f"norms at most {off:.2g} from 1: {verdict}")


def is_pro_1b(family: Janus) -> bool:
    """Whether the model has the sizes and the roles of Janus-Pro-1B."""
    roles = (family.template.user, family.template.assistant)
    config: JanusConfig = family.model.config
    context = config.decoder.max_positions  # some folders give the trained one
    decoder = replace(JANUS_PRO_1B.decoder, max_positions=context)
    return config == replace(JANUS_PRO_1B, decoder=decoder) and roles == PRO_ROLES


def why_not(family: Janus) -> str | None:
    """Why the published results cannot be expected here, if they cannot."""
    if not is_pro_1b(family):
        return "known for Janus-Pro-1B alone"
    return None if family.model.device.type == "cuda" else "known for CUDA alone; none here"


def draws_as_published(model: Model, family: Janus) -> Check:
    """The first greedy image tokens are those that transformers' test expects."""
    if reason := why_not(family):
        return Check("first image tokens", None, f"not run: {reason}")
    expected = [int(code) for code in DRAWN.split()]
    drawn = first_codes(model, family, PROMPT, len(expected))
    same = sum(a == b for a, b in zip(drawn, expected, strict=True))
    found = f"{same} of {len(expected)} as published: {drawn}"
    return Check("first image tokens", same == len(expected), found)


def first_codes(model: Model, family: Janus, prompt: str, count: int) -> list[int]:
    """Greedy codes at guidance 5 after the bare prompt, as in transformers' test."""
    t, vocabulary = family.template, family.model.vocabulary
    line = PromptBuilder(t.tokenizer).special(t.bos).text(prompt).special(t.begin_of_image).branch()
    branches = Branch(line.token_ids, 5.0), Branch(t.unconditional(line).token_ids, -4.0)
    image = vocabulary.image_range
    plan = FixedPlan(IdRange(image.start, image.stop), count)
    (output,) = model.driver.complete([Request(branches, plan, Sampling(temperature=0))])
    return vocabulary.id_to_code(torch.tensor(output.token_ids)).tolist()


def says_as_published(model: Model, family: Janus, picture: Image.Image | None) -> Check:
    """The greedy words on the picture are those that transformers' test expects."""
    if picture is None:
        return Check("words on a picture", None, "not run: give one by --picture")
    text = words_on(model, family, picture, 20)
    reason = why_not(family)
    if reason:
        return Check("words on a picture", None, f"not compared, {reason}: {text!r}")
    return Check("words on a picture", text.strip() == SAID, repr(text))


def words_on(model: Model, family: Janus, picture: Image.Image, count: int) -> str:
    """Greedy text after a question that is in no turn, as in transformers' test."""
    t = family.template
    builder = PromptBuilder(t.tokenizer).special(t.bos).text(SYSTEM + "\n\n")
    line: Branch = builder.picture(family.encode_image(picture)).text(f"\n{QUESTION}").branch()
    text = family.model.vocabulary.text_range
    plan = FreePlan(IdRange(text.start, text.stop), frozenset([t.tokenizer.id(t.eos)]), count)
    branch = Branch(line.token_ids, 1.0, line.embeddings)
    (output,) = model.driver.complete([Request((branch,), plan, Sampling(temperature=0))])
    return t.tokenizer.decode(output.token_ids)


def picture_comes_back(family: Janus, picture: Image.Image) -> Check:
    """How much of a picture is left after encoding and decoding it as image tokens."""
    codec: Any = family.model.image_tokenizer
    side = codec.config.image_size
    array = np.array(picture.resize((side, side), Image.Resampling.BICUBIC))
    pixels = torch.from_numpy(array).permute(2, 0, 1)[None].float() / 255
    again = codec.decode(codec.encode(pixels)).cpu()
    error = float((again - pixels).square().mean())
    decibels = -10 * float(np.log10(max(error, 1e-10)))
    return Check("picture round trip", None, f"{decibels:.1f} dB")


if __name__ == "__main__":
    main()
