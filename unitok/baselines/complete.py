"""Says which file a folder lacks, before a library says it at length."""

from pathlib import Path

PROCESSOR = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")


def check_complete(folder: Path, *choices: tuple[str, ...]) -> None:
    """Check that a folder has one file of each choice.

    Raises:
        FileNotFoundError: It has none of a choice.
    """
    for names in choices:
        if not any((folder / name).is_file() for name in names):
            raise FileNotFoundError(f"{folder} is not complete: it has no {' or '.join(names)}")
