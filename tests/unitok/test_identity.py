"""The identity of a model, on which the keys of a batch's results depend."""

from pathlib import Path

from unitok.batch.identity import identity_of_load
from unitok.batch.keys import model_identity


def test_what_runs_a_model_counts_and_where_it_computes_does_not(untrained_folder: Path):
    folder = str(untrained_folder)
    plain = identity_of_load(folder, {})
    assert plain == model_identity(untrained_folder)
    same = {"backend": "unitok", "device": "cpu", "dtype": "float32", "quantize": None}
    assert identity_of_load(folder, same) == plain
    others = [{"backend": "vllm"}, {"quantize": "int8"}, {"quantize": "int4"}]
    assert len({plain, *(identity_of_load(folder, other) for other in others)}) == 4
