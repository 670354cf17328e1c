"""Fuzzes the command line: commands with flags and values that are damaged."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from random import Random

from tests.fuzz.command import run_command
from tests.fuzz.guard import CONNECT, WRITE
from tests.fuzz.mutations import mutated_bytes
from tests.fuzz.pictures import picture
from tests.fuzz.target import Place

COMMANDS = (
    "draw|two apples|-o|out.png|--seed|7|-n|2|--guidance|1.5|--json|--logprobs",
    "draw|a cat|--output|out.png|--temperature|0.5|--top-k|8|--top-p|0.9|--min-p|0.1|--size|64x64",
    "draw|a cat|--output|out.png|--negative-prompt|a dog|--memory|8MB|--dtype|bf16|--no-drafts",
    "draw|a cat|-o|out.png|--preview|--preview-count|3|--preview-budget|0.1",
    "caption|cat.png|--question|what is this?|--max-tokens|3|--stop|x|--stop|y",
    "caption|cat.png|--regex|[a-z]{2}|--choice|a|--choice|b|--json-schema|in.jsonl|--max-tokens|9",
    "caption|cat.png|cat.png|--max-tokens|2|--json|--branch-logprobs|--repetition-penalty|1.2|-v",
    "edit|cat.png|make it night|-o|out.png|--freedom|0.5|--quiet",
    "edit|cat.png|a cat|-o|out.png|--box|0,0,8,8|--tries|2|--strength|0.5|--decode-all|--seed|1",
    "edit|cat.png|a cat|-o|out.png|--mask|cat.png|--margin|0,0,8,8",
    "info|--json|--strict|--device|cpu|--memory|10%|--dtype|float32",
    "info|--adapter|in.jsonl|--dtype|float32",
    "save|-o|saved|--layout|original|--adapter|.",
    "batch|in.jsonl|-o|results|-vv",
    "batch|in.jsonl|-o|results|--ray|127.0.0.1:1|--replicas|2|--gpus-per-replica|0.5",
    "batch|in.jsonl|-o|results|--ray|127.0.0.1:1|--cpus-per-replica|1|--format|parquet",
    "chat|--out|drawings|--no-preview",
    "baseline|features|cat.png|-o|out.safetensors|--pooling|cls|--json",
    "baseline|draw|a cat|-o|out.png|--steps|2|--size|64x64|--scheduler|ddim|--seed|7|-n|2",
    "baseline|caption|cat.png|--question|what is this?|--max-tokens|3|--dtype|bf16|--batch-size|2",
    "baseline|classify|cat.png|--label|a cat|--label|a dog|--json|--quiet",
    "baseline|search|a cat|.|-k|3|--store|out.safetensors",
    "baseline|segment|cat.png|--point|1,2|--box|1,2,3,4|-o|out.png",
    "baseline|detect|cat.png|--label|cat|--threshold|0.5",
    "baseline|transcribe|cat.wav|--language|en|--task|translate",
    "baseline|compose|a waltz|-o|out.wav|--seconds|1|--guidance|2",
    "data|pairs|in.jsonl|--reward|exact|-n|2|--out|pairs.jsonl|--margin|0.5|--guidance|2|--top-k|3",
    "data|check|train.jsonl|--sheet|out.png|--samples|3|--max-length|40|--too-long|cut|--json",
)
WORDS = (
    "",
    "-",
    "--",
    "-1",
    "0",
    "1",
    "nan",
    "inf",
    "1e999",
    "9" * 40,
    "9" * 5000,
    "cuda",
    "meta",
    "cpu:7",
    "int8",
    "200%",
    "-5MB",
    "0",
    "1x1",
    "99999x99999",
    "nowhere.png",
    ".",
    "in.jsonl",
    "cat.png",
    "out.gif",
    "out",
    "http://127.0.0.1/cat.png",
    "--unknown",
    "--json",
    "--quiet",
    "--strict",
    "-v",
    "é" * 300,
    "x" * 300_000,
)


class Flags:
    """Commands run in a folder of their own, with a tiny model."""

    memory = 600 * 2**20
    permits: Collection[str] = (WRITE, CONNECT)  # `-o` and `--ray` say where

    def __init__(self, place: Place) -> None:
        """Make the files that the commands name."""
        self.folder, self.model = place.folder / "commands", place.model_folder
        self.folder.mkdir()
        picture("RGB").save(self.folder / "cat.png")
        line = {"caption": "cat.png", "max_tokens": 2}
        (self.folder / "in.jsonl").write_text(json.dumps(line))
        shown = [{"type": "image", "path": "cat.png"}, "what is this?"]
        said = [{"role": "user", "content": shown}, {"role": "assistant", "content": "a cat"}]
        (self.folder / "train.jsonl").write_text(json.dumps({"messages": said}))

    def make(self, random: Random) -> bytes:
        """A command in which words are damaged, missing, or in another place."""
        words = [str(word) for word in random.choice(COMMANDS).split("|")]
        for _ in range(random.choice((1, 1, 2))):
            place = random.randrange(1, len(words) + 1)
            what = random.choice(("put", "put", "insert", "remove", "damage"))
            if what == "damage" and place < len(words):
                damaged = mutated_bytes(random, words[place].encode())
                words[place] = damaged.decode("utf-8", "replace")
            else:
                words[place : place + (what != "insert")] = [random.choice(WORDS)] * (
                    what != "remove"
                )
        return json.dumps([word.replace("\0", "") for word in words]).encode()  # as a system does

    def run(self, case: bytes) -> None:
        """Run the command, and check how it ends and what it says."""
        words = [*json.loads(case), "--model", str(self.model)]
        code, told = run_command(words, self.folder, "hello\n/draw a cat\n")
        if code:
            raise ValueError(told[-900:])

    def names(self, case: bytes) -> Sequence[str]:
        """None: the words of a command are in no order."""
        return ()
