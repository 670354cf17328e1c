"""vLLM's CPU build on random weights, in a process and an environment of its own."""

import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

from benchmarks.peers.transformers_peer import llama_config
from unitok.backends.vllm.checkpoint import open_checkpoint
from unitok.backends.vllm.layout import TokenLayout
from unitok.checkpoints.saving import write_json
from unitok.families.janus import Preprocessor
from unitok.families.janus.config import config_to_json
from unitok.families.janus.files import copy_tokenizer
from unitok.loading import DEFAULT_FOLDER
from unitok.nn.config import DecoderConfig, JanusConfig

CHILD = Path(__file__).with_name("vllm_child.py")
ROOT = Path(__file__).resolve().parents[2]


class VllmSteps:
    """vLLM in the middle of decoding: each call is one step over all its rows.

    It computes nothing between calls; its threads sleep a few milliseconds after the last one.
    """

    def __init__(
        self,
        python: Path,
        write: Callable[[Path], Sequence[int]],
        rows: int,
        context: int,
        steps: int,
        threads: int,
    ) -> None:
        """Start vLLM, and wait until all rows decode.

        Args:
            python: The Python of the environment that has vLLM.
            write: Writes the folder of the model, and gives what the child is told beside the
                numbers below; `of_llama` and `of_janus` do.
            rows: How many sequences decode.
            context: Tokens of each of them.
            steps: How many calls will come, at most.
            threads: How many threads vLLM may use.

        Raises:
            RuntimeError: vLLM ended; the message has the end of what it printed.
        """
        self._folder = TemporaryDirectory(prefix="vllm-")
        folder = Path(self._folder.name)
        more = write(folder)
        self._log = folder / "log"
        task = map(str, (folder, rows, context, steps, *more))
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [str(python), str(CHILD), *task],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment(python, threads),
            )
        self.version = self._answer()

    def __call__(self) -> None:
        """Run one step.

        Raises:
            RuntimeError: vLLM ended; the message has the end of what it printed.
        """
        assert self._process.stdin
        self._process.stdin.write("step\n")
        self._process.stdin.flush()
        self._answer()

    def __enter__(self) -> Self:
        """Use it in a block."""
        return self

    def __exit__(self, *_: object) -> None:
        """End vLLM and remove its files."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()
        self._folder.cleanup()

    def _answer(self) -> str:
        assert self._process.stdout
        if not (line := self._process.stdout.readline()):
            end = "\n".join(self._log.read_text().splitlines()[-20:])
            raise RuntimeError(f"vLLM ended with {self._process.wait()}:\n{end}")
        return line.strip()


def of_llama(decoder: DecoderConfig) -> Callable[[Path], Sequence[int]]:
    """Writes the folder of a Llama."""

    def write(folder: Path) -> Sequence[int]:
        llama_config(decoder, decoder.vocab_size).save_pretrained(folder)
        return ()

    return write


def of_janus(sizes: JanusConfig) -> Callable[[Path], Sequence[int]]:
    """Writes the folder of a Janus that draws, with the embedded model's text tokenizer."""

    def write(folder: Path) -> Sequence[int]:
        copy_tokenizer(DEFAULT_FOLDER, folder)
        write_json(folder / "config.json", config_to_json(sizes, 5, "bfloat16"))
        preprocessor = Preprocessor(sizes.vision.image_size).to_json("transformers")
        write_json(folder / "preprocessor_config.json", preprocessor)
        return (TokenLayout.of_folder(open_checkpoint(str(folder))).paint,)

    return write


def environment(python: Path, threads: int) -> dict[str, str]:
    """Variables for vLLM in one process, with Intel's OpenMP as its documentation advises."""
    openmp = python.parents[1] / "lib" / "libiomp5.so"
    return {
        **os.environ,
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(threads),
        "LD_PRELOAD": str(openmp) if openmp.is_file() else "",
        # Milliseconds that threads spin after a parallel region; as vLLM sets it for its workers.
        "KMP_BLOCKTIME": "5",
    }
