"""Hostile schemas, regular expressions and choices neither hang nor end a model."""

from pathlib import Path
from random import Random

import unitok
from tests.fuzz.forms import Forms
from tests.fuzz.target import DOCUMENTED, Place, check_message
from tests.unitok.tiny import save_tiny


def test_random_forms_are_answered_or_refused_by_name(tmp_path: Path):
    folder = save_tiny(tmp_path)
    with unitok.load(folder, device="cpu", memory="8MB") as model:
        target, taken = Forms(Place(tmp_path, folder, model)), 0
        for index in range(300):
            case = target.make(Random(f"answers-{index}"))
            try:
                target.run(case)
                taken += 1
            except DOCUMENTED as error:
                check_message(str(error), target.names(case))
        assert 60 < taken < 240
        assert model.stats().used_blocks == 0
