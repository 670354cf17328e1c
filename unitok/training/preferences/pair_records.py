"""Ranked pairs as records of a data set: JSON lines, with pictures and their codes beside them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unitok.messages import PICTURE_PARTS, placed
from unitok.requests import Caption, Draw, Reply
from unitok.results import DrawResult
from unitok.saving import save_whole
from unitok.training.data.caption_pairs import message
from unitok.training.preferences.ranked import RankedPair
from unitok.training.reinforcement.rollouts import Rollout
from unitok.vocabulary import Vocabulary


class PairWriter:
    """Makes records of pairs, and writes their pictures into a folder.

    Attributes:
        file: The JSON lines that the records are for.
        pictures: The folder beside it that has the pictures.
    """

    def __init__(self, file: Path, vocabulary: Vocabulary, question: str, made: int = 0) -> None:
        """Nothing is written yet.

        Args:
            file: The JSON lines.
            vocabulary: Of the model, which makes codes of token ids.
            question: What the model is asked where a prompt shows a picture alone.
            made: How many records there are already.
        """
        self.file, self.vocabulary, self.question = file, vocabulary, question
        self.pictures = file.with_name(f"{file.stem}-pictures")
        self._count = made

    def record(self, pair: RankedPair) -> dict[str, Any]:
        """The record of a pair.

        Raises:
            OSError: A picture cannot be written.
        """
        self._count += 1
        sides = {"chosen": pair.chosen, "rejected": pair.rejected}
        answers = {key: self._answer(rollout, key) for key, rollout in sides.items()}
        return {"messages": self._messages(pair.prompt.request), **answers}

    def _messages(self, request: Draw | Caption | Reply) -> Sequence[Mapping[str, Any]]:
        if isinstance(request, Draw):
            return [message("user", request.prompt)]
        if isinstance(request, Reply):
            return self._rebased(request.messages, request.folder or Path())
        question = self.question if request.question is None else request.question
        image = {"type": "image", "image": self._rebased_source(request.image, Path())}
        system = [] if request.system is None else [message("system", request.system)]
        return [*system, message("user", [image, {"type": "text", "text": question}])]

    def _answer(self, rollout: Rollout, side: str) -> dict[str, Any]:
        """What the assistant says or paints."""
        result = rollout.result
        if not isinstance(result, DrawResult):
            return message("assistant", result.text)
        path = self.pictures / f"{self._count:06}-{side}.png"
        save_whole(result.image, path)
        sampled = zip(rollout.token_ids, rollout.targets, strict=True)
        codes = [self.vocabulary.id_to_code(token) for token, is_sampled in sampled if is_sampled]
        part = {"type": "image", "image": self._relative(path), "codes": codes}
        return message("assistant", [part])

    def _relative(self, path: Path) -> str:
        """A path as the record names it: from the folder of its file."""
        relative = Path(os.path.relpath(path, self.file.parent)).as_posix()
        return f"./{relative}" if ":" in relative else relative

    def _rebased(
        self, messages: Sequence[Mapping[str, Any]], folder: Path
    ) -> list[Mapping[str, Any]]:
        """Messages whose relative paths start at the folder of the file, not at another one."""
        return [
            said
            if isinstance(said["content"], str)
            else {**said, "content": [self._rebased_part(part, folder) for part in said["content"]]}
            for said in messages
        ]

    def _rebased_part(self, part: Any, folder: Path) -> Any:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind not in PICTURE_PARTS:
            return part
        keys = [key for key in PICTURE_PARTS[kind] if key != "base64" and part.get(key)]
        return {**part, **{key: self._rebased_source(part[key], folder) for key in keys}}

    def _rebased_source(self, source: Any, folder: Path) -> Any:
        if isinstance(source, Mapping):  # {"url": ...}
            return {**source, "url": self._rebased_source(source["url"], folder)}
        found = placed(source, folder)
        return self._relative(found) if isinstance(found, Path) else source
