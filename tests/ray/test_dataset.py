"""`unitok.run_dataset`: rows of any dataset of Ray's, and Parquet as the input of the command."""

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from PIL import Image

import unitok
from unitok.commands.batch_on_ray import lines_of

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.timeout(600)]


def png() -> bytes:
    file = BytesIO()
    Image.new("RGB", (64, 64), "pink").save(file, "PNG")
    return file.getvalue()


def rows() -> list[dict]:
    names = ("draw", "caption", "max_tokens", "seed")
    values = [
        ("a cat", None, None, 7),
        (None, png(), 3, None),
        ("a dog", None, None, None),
        (None, b"no picture", 3, None),
        ("a cat", None, None, 7),
    ]
    return [dict(zip(names, row, strict=True)) for row in values]


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> Path:
    """Rows in two files of Parquet."""
    folder = tmp_path_factory.mktemp("tables")
    schema = pa.schema(
        [
            ("draw", pa.string()),
            ("caption", pa.binary()),
            ("max_tokens", pa.int64()),
            ("seed", pa.int64()),
        ]
    )
    for name, some in (("a", rows()[:3]), ("b", rows()[3:])):
        pq.write_table(pa.Table.from_pylist(some, schema), folder / f"{name}.parquet")
    return folder


def test_rows_of_parquet_become_parquet_with_pictures(tables, short_folder, tmp_path):
    out = tmp_path / "out"

    def run() -> unitok.DatasetReport:
        dataset = ray.data.read_parquet(str(tables))
        return unitok.run_dataset(
            dataset, out, short_folder, lines_per_part=2, dtype="float32", memory="4MB"
        )

    report = run()
    assert (report.new, report.kept) == (4, 0)
    assert [one.line for one in report.failed] == [4]
    assert [replica.lines for replica in report.replicas] == [5]
    results = ray.data.read_parquet(str(out / "results")).to_pandas().sort_values("line")
    assert list(results["line"]) == [1, 2, 3, 5] and results["key"].is_unique
    model = unitok.load(short_folder, device="cpu")
    first, caption, unseeded, last = results.to_dict("records")
    for record in (first, last):
        (picture,) = record["pictures"]
        with Image.open(BytesIO(picture["bytes"])) as image:
            assert image.tobytes() == model.draw("a cat", seed=7).image.tobytes()
    wanted = model.caption(Image.new("RGB", (64, 64), "pink"), max_tokens=3)
    assert caption["text"] == wanted.text and len(caption["pictures"]) == 0
    assert json.loads(unseeded["record"])["request"] == {"draw": "a dog"}
    assert (run().kept, len(run().failed)) == (4, 1)
    shorter = ray.data.read_parquet(str(tables)).limit(3)
    with pytest.raises(ValueError, match="the results of another run: other lines"):
        unitok.run_dataset(shorter, out, short_folder, lines_per_part=2)
    with pytest.raises(ValueError, match="the results of another run: other model and format"):
        unitok.run_dataset(
            ray.data.read_parquet(str(tables)), out, format="jsonl", lines_per_part=2
        )


def test_wrong_arguments_are_told_before_anything_is_written(short_folder, tmp_path):
    dataset, out = ray.data.from_items([{"draw": "a cat"}]), tmp_path / "out"
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"replicas": 0}, "replicas must be at least 1, not 0"),
        ({"gpus_per_replica": 1}, "the cluster has none"),
        ({"lines_per_part": 0}, "lines_per_part must be at least 1, not 0"),
        ({"format": "csv"}, "format must be jsonl or parquet, not 'csv'"),
    ]
    for given, told in wrong:
        with pytest.raises(ValueError, match=told):
            unitok.run_dataset(dataset, out, short_folder, **given)
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        unitok.run_dataset(dataset, out, "nowhere")
    with pytest.raises(ValueError, match="the column draw holds a complex"):
        strange = ray.data.from_items([{"draw": 1j}])
        unitok.run_dataset(strange, out, short_folder)
    assert [path.name for path in out.glob("*") if path.name != ".lock"] == []


def test_a_file_that_is_no_parquet_is_named(tmp_path):
    source = tmp_path / "work.parquet"
    source.write_bytes(b"no Parquet")
    with pytest.raises(ValueError, match=r"work\.parquet: Parquet"):
        lines_of(str(source), tables=True)


def test_an_argument_that_load_refuses_ends_the_run(short_folder, tmp_path):
    dataset = ray.data.from_items([{"draw": "a cat"}])
    with pytest.raises(RuntimeError, match="cannot load the model: memory must be"):
        unitok.run_dataset(dataset, tmp_path / "out", short_folder, memory="much")


def test_a_dataset_without_rows_gives_no_results(short_folder, tmp_path):
    report = unitok.run_dataset(ray.data.from_items([]), tmp_path / "out", short_folder)
    assert (report.new, report.kept, report.failed, report.replicas) == (0, 0, (), ())
