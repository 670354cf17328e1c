"""Caption every picture of a folder, or ask the same question about each.

    python examples/caption_a_folder.py FOLDER
    python examples/caption_a_folder.py FOLDER --question "how many cats are there?"

OUT/captions.jsonl gets a line of JSON per picture, in the order of their names. A file that is no
picture gets an "error" instead of a "text", and the others go on.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from PIL import Image

import unitok


def pictures_in(folder: Path) -> list[Path]:
    """The files of a folder that are named as pictures are, by name."""
    suffixes = Image.registered_extensions()
    named = (path for path in folder.iterdir() if path.suffix.lower() in suffixes)
    return sorted(path for path in named if path.is_file())


def caption_all(model: unitok.Model, paths: list[Path], question: str | None) -> list[dict]:
    """What was said of each picture. `run` has many of them in work at once."""
    records: list[dict] = [{} for _ in paths]
    for result in model.run(unitok.Caption(path, question) for path in paths):
        assert isinstance(result, unitok.TextResult)
        said = {"text": result.text} if result.error is None else {"error": result.error}
        records[result.index] = {"file": paths[result.index].name} | said
    return records


def main() -> None:
    """Read the command line, caption the folder, write the lines."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="a folder of pictures")
    parser.add_argument("--question", help="answer this, instead of describing")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("out/captions"),
        help="a folder for the results (default: %(default)s)",
    )
    args = parser.parse_args()

    paths = pictures_in(args.folder)
    if not paths:
        parser.error(f"{args.folder} holds no pictures")
    args.out.mkdir(parents=True, exist_ok=True)
    with unitok.load() as model:
        records = caption_all(model, paths, args.question)
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    (args.out / "captions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for record in records:
        print(f"{record['file']}: {record.get('text') or record['error']}")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(f"error: {error}")
