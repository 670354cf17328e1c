"""`unitok baseline ...`: flags, messages, files and exit codes, with models that are made here."""

import io
import json
import os
import subprocess
import sys
import wave
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from typer.testing import CliRunner, Result

from unitok.baselines import captioners, opening
from unitok.baselines.encoders import ClipEncoder
from unitok.baselines.protocols import Audio, Detection, Segmentation, Video
from unitok.baselines.scorers import ClipScorer
from unitok.baselines.stable_diffusion import StableDiffusion
from unitok.baselines.wav import wav_bytes
from unitok.cli import app
from unitok.commands import baseline
from unitok.pictures import open_picture
from unitok.requests import Caption, Draw, options_of
from unitok.results import DrawResult, Picture, TextResult, failure

COMMANDS = (
    "caption draw edit film classify search detect segment features transcribe compose".split()
)
MODEL = ("--model", "out/model")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Opened:
    """Stands for `opening.load`: gives a model, and keeps what was asked for."""

    def __init__(self) -> None:
        self.model: Any = None
        self.asked: dict[str, Any] = {}

    def __call__(self, source: str, role: str, **options: Any) -> Any:
        self.asked = {"source": source, "role": role, **options}
        if isinstance(self.model, Exception):
            raise self.model
        return self.model

    @property
    def options(self) -> dict[str, Any]:
        """Those of the adapter alone."""
        every = ("source", "role", "device", "hub", "silent")
        return {name: value for name, value in self.asked.items() if name not in every}


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    made = Opened()
    monkeypatch.setattr(opening, "load", made)
    return made


def run(*words: str, typed: bytes | None = None, model: bool = True) -> Result:
    every = ["baseline", *words, *(MODEL if model else ())]
    return CliRunner().invoke(app, every, input=typed, prog_name="unitok")


def one_line(text: str) -> str:
    assert text.endswith("\n") and text.count("\n") == 1, text
    return text.strip()


def picture(name: str, colour: str = "red", size: tuple[int, int] = (12, 10)) -> str:
    Image.new("RGB", size, colour).save(name)
    return name


def red(name: str) -> int:
    """How red the first pixel of a picture is."""
    return int(np.asarray(Image.open(name))[0, 0, 0])


def sound(name: str, seconds: float = 0.5, rate: int = 8000) -> str:
    tone = np.sin(np.arange(int(seconds * rate)) / 5).astype(np.float32)[None]
    Path(name).write_bytes(wav_bytes(Audio(tone, rate)))
    return name


# --- help, and what goes wrong at once -----------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_with_an_example(command: str):
    result = run(command, "--help", model=False)
    told = " ".join(result.stdout.split())
    assert result.exit_code == 0 and f"unitok baseline {command}" in told.partition("Example:")[2]
    for flag in ("--model", "--device", "--revision", "--cache-dir", "--quiet"):
        assert flag in told
    assert "--memory" not in told and "--adapter" not in told


def test_help_imports_no_library():
    code = (
        "import sys; from typer.testing import CliRunner; from unitok.cli import app\n"
        "assert CliRunner().invoke(app, ['baseline', '--help']).exit_code == 0\n"
        "print({'torch', 'transformers', 'diffusers', 'huggingface_hub'} & set(sys.modules))"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_a_model_must_be_named(command: str):
    words = {"edit": ["a.png", "b"], "search": ["a", "b"]}.get(command, ["a"])
    result = run(command, *words, model=False)
    assert result.exit_code == 2 and "--model" in result.stderr


def test_flags_are_what_adapters_honour():
    honoured = StableDiffusion.honoured | {"seed", "n"}
    captions = set(options_of(Caption)) - set(baseline.NOT_OF_CAPTIONS)
    drawings = set(options_of(Draw)) - set(baseline.NOT_OF_DRAWINGS)
    assert captions == captioners.Captioner.honoured
    assert drawings == honoured - {"freedom", "mask", "prompt"}


@pytest.mark.parametrize(
    "error",
    [
        ImportError("this needs diffusers: pip install 'unitok-engine[baselines]'"),
        FileNotFoundError("out/model: no such folder"),
        ValueError("out/model has none of model_index.json"),
        TypeError("DiT has no option 'controlnet'"),
    ],
)
def test_a_model_that_cannot_be_opened_is_one_line(opened: Opened, error: Exception):
    opened.model = error
    result = run("draw", "a cat", "-o", "cat.png")
    assert (result.exit_code, one_line(result.stderr)) == (2, f"unitok: {error}")
    assert result.stdout == ""


def test_a_library_that_is_missing_only_when_it_is_used_is_one_line(opened: Opened):
    opened.model = Recognizer(ImportError("this needs scipy"))
    result = run("transcribe", sound("a.wav"))
    assert (result.exit_code, one_line(result.stderr)) == (2, "unitok: this needs scipy")


def test_what_a_hub_id_is_asked_for_with_is_passed_on(opened: Opened):
    opened.model = Recognizer()
    words = ["--revision", "v1", "--cache-dir", "kept", "--device", "cpu", "--language", "en"]
    assert run("transcribe", sound("a.wav"), *words).exit_code == 0
    assert (opened.asked["source"], opened.asked["role"]) == ("out/model", "speech")
    assert opened.asked["hub"].given == {"revision": "v1", "cache_dir": Path("kept")}
    assert opened.asked["silent"]
    assert (opened.asked["device"], opened.options) == ("cpu", {"language": "en"})


# --- captions ------------------------------------------------------------------------------------


class Captioner:
    """Says what it was asked, the last one first. A picture that cannot be read fails."""

    closed = False

    def run(self, requests: Any) -> Any:
        for index, asked in reversed(list(enumerate(requests))):
            try:
                size = open_picture(asked.image).size
            except Exception as error:
                yield failure(asked, index, error)
            else:
                text = f"{size[0]} wide,\n{asked.question}"
                yield TextResult(text, 5, "stop", 1, 2, 0.1, asked, index=index)

    def close(self) -> None:
        self.closed = True


def test_caption_prints_a_line_per_file_in_their_order(opened: Opened):
    opened.model = Captioner()
    files = [picture("a.png"), picture("b.png", size=(20, 20)), "none.png"]
    words = ["--question", "what?", "--batch-size", "3", "--dtype", "bf16", "--vision-tower", "t"]
    result = run("caption", *files, *words)
    assert result.exit_code == 1 and opened.model.closed
    assert result.stdout == "a.png: 12 wide, what?\nb.png: 20 wide, what?\n"
    assert one_line(result.stderr) == "unitok: none.png: no such file"
    assert opened.options == {"batch_size": 3, "dtype": "bf16", "vision_tower": "t"}


def test_caption_takes_a_picture_from_stdin_and_prints_json(opened: Opened):
    opened.model, piped = Captioner(), io.BytesIO()
    Image.new("RGB", (7, 7)).save(piped, "PNG")
    result = run("caption", "-", "--json", typed=piped.getvalue())
    said = json.loads(one_line(result.stdout))
    assert (said["file"], said["text"], said["seed"]) == ("-", "7 wide,\nNone", 5)


def test_a_url_is_refused(opened: Opened):
    opened.model = Captioner()
    result = run("caption", "https://example.org/cat.png")
    assert result.exit_code == 1
    assert "is a URL; download the picture, and give its file" in one_line(result.stderr)


def test_a_range_is_checked_before_a_model_is_opened(opened: Opened):
    result = run("caption", picture("a.png"), "--max-tokens", "0")
    assert (result.exit_code, opened.asked) == (2, {})
    assert one_line(result.stderr) == "unitok: max_tokens must be at least 1, not 0"


# --- pictures ------------------------------------------------------------------------------------


class Generator:
    """Makes pictures of one colour; one of "bad" fails."""

    name = "colours"

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def run(self, requests: Any) -> Any:
        self.asked = list(requests)
        for index, asked in reversed(list(enumerate(self.asked))):
            if asked.prompt == "bad":
                yield failure(asked, index, ValueError("it is bad"))
                continue
            seeds = tuple(range(asked.seed or 0, (asked.seed or 0) + asked.samples))
            images = tuple(
                Picture.wrap(torch.full((8, 8, 3), s, dtype=torch.uint8), {"seed": f"{s}"})
                for s in seeds
            )
            for image in images:
                image.info["sample"] = "0"
            yield DrawResult(
                asked.prompt, images, seeds[0], "complete", 0, 0, 0.1, asked, index, seeds=seeds
            )


def test_draw_saves_numbered_pictures_and_says_their_seeds(opened: Opened):
    opened.model = Generator()
    words = ["--seed", "3", "-n", "2", "--size", "64x32", "--guidance", "2", "--scale", "2"]
    result = run("draw", "one", "two", "-o", "made/it.png", *words, "--negative-prompt", "grey")
    assert result.exit_code == 0, result.stderr
    lines = [f"made/it-{i}.png: seed {3 + i % 2}, sample 0" for i in range(4)]
    assert result.stdout.splitlines() == lines
    assert [red(f"made/it-{i}.png") for i in range(4)] == [3, 4, 3, 4]
    asked = opened.model.asked[0]
    assert (asked.size, asked.guidance, asked.negative_prompt) == ((64, 32), 2, "grey")


def test_draw_passes_on_options_of_the_pipeline(opened: Opened):
    opened.model = Generator()
    words = ["--steps", "7", "--scheduler", "ddim", "--controlnet", "edges", "--batch-size", "2"]
    file = picture("edges.png")
    assert run("draw", "a", "-o", "a.png", *words, "--image", file).exit_code == 0
    assert opened.options == {
        "steps": 7,
        "scheduler": "ddim",
        "controlnet": "edges",
        "batch_size": 2,
    }
    assert opened.model.asked[0].images == (Path("edges.png"),)


def test_a_drawing_that_fails_does_not_stop_the_others(opened: Opened):
    opened.model = Generator()
    result = run("draw", "bad", "good", "-o", "a.png", "--json")
    assert result.exit_code == 1
    assert one_line(result.stderr) == "unitok: a-0.png: it is bad"
    said = json.loads(one_line(result.stdout))
    assert (said["prompt"], said["files"]) == ("good", ["a-1.png"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-o", "a.xyz"], "a.xyz: name a picture, such as a.png"),
        (["-o", "old.png", "--no-clobber"], "old.png exists; name another file, or drop"),
        (["-o", "a.png", "--size", "big"], "--size must be width x height in pixels"),
        (["-o", "a.png", "--guidance", "1e9"], "guidance must be from -1000 to 1000"),
    ],
)
def test_a_wrong_drawing_is_refused_before_a_model_is_opened(
    words: list[str], message: str, opened: Opened
):
    picture("old.png")
    result = run("draw", "a", *words)
    assert (result.exit_code, opened.asked) == (2, {})
    assert message in one_line(result.stderr)


def test_edit_gives_the_picture_and_the_mask(opened: Opened):
    opened.model = Generator()
    words = ["--mask", "m.png", "--control", "c.png", "--negative-prompt", "grey"]
    result = run(
        "edit",
        picture("a.png"),
        "at night",
        "-o",
        "b.png",
        "--freedom",
        "0.5",
        "--seed",
        "4",
        *words,
    )
    assert (result.exit_code, result.stdout) == (0, "b.png: seed 4\n"), result.stderr
    (asked,) = opened.model.asked
    assert (asked.image, asked.prompt, asked.freedom) == (Path("a.png"), "at night", 0.5)
    assert (asked.mask, asked.control) == (Path("m.png"), Path("c.png"))
    assert asked.negative_prompt == "grey"


class Filmer(Generator):
    """Makes clips, too."""

    def draw(self, prompt: Any, **options: Any) -> Any: ...

    def close(self) -> None: ...

    def film(self, prompt: str, frames: int, **options: Any) -> Video:
        self.options = options
        return Video(tuple(Image.new("RGB", (8, 8), (i, 0, 0)) for i in range(frames)), 16.0)


def test_film_saves_frames(opened: Opened):
    opened.model = Filmer()
    result = run("film", "a cat", "-o", "f/cat.png", "--frames", "3", "--seed", "9")
    assert result.stdout == "f/cat.png: seed 9, 3 frames at 16 a second\n", result.stderr
    assert [red(f"f/cat-{i}.png") for i in range(3)] == [0, 1, 2]
    assert opened.model.options["seed"] == 9
    opened.model = Generator()
    result = run("film", "a cat", "-o", "cat.png")
    assert one_line(result.stderr) == "unitok: colours makes no clips; use draw"
    assert result.exit_code == 2


# --- scores --------------------------------------------------------------------------------------


class ColourScorer(ClipScorer):
    """Knows how red, green and blue a picture is, and the words for it."""

    def __init__(self) -> None:
        super().__init__(Path("colours"), "cpu")

    def _load(self, dtype: str) -> None:
        self._model = None  # there is nothing to open

    @property
    def fingerprint(self) -> str:
        return "colours"

    def prepare_image(self, image: Any) -> Any:
        mean = np.asarray(image, dtype=np.float32).mean((0, 1))
        return {"mean": torch.from_numpy(mean / 255 + 0.01)[None]}

    def encode_images(self, inputs: Any) -> torch.Tensor:
        return inputs["mean"]

    def encode_texts(self, texts: Any) -> torch.Tensor:
        return torch.tensor(
            [[float(w in t) + 0.01 for w in ("red", "lime", "blue")] for t in texts]
        )

    def logits(self, similarity: torch.Tensor) -> torch.Tensor:
        return 10 * similarity

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.softmax(-1)


LABELS = ("--label", "red", "--label", "blue")


def test_classify_prints_the_likeliest_label_first(opened: Opened):
    opened.model = ColourScorer()
    files = [picture("a.png", "blue"), "none.png", picture("b.png", "red")]
    result = run("classify", *files, *LABELS)
    assert result.exit_code == 1
    assert result.stdout == "a.png: blue 1.000, red 0.000\nb.png: red 1.000, blue 0.000\n"
    assert one_line(result.stderr) == "unitok: none.png: no such file"
    said = json.loads(one_line(run("classify", "a.png", *LABELS, "--json").stdout))
    assert (said["file"], said["label"]) == ("a.png", "blue")
    assert sum(said["probabilities"].values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("labels", "message"),
    [(["red", " red"], "--label 'red' is given twice"), (["red", " "], "a --label is empty")],
)
def test_wrong_labels_are_refused(labels: list[str], message: str, opened: Opened):
    words = [word for label in labels for word in ("--label", label)]
    result = run("classify", picture("a.png"), *words)
    assert (result.exit_code, opened.asked) == (2, {}) and message in one_line(result.stderr)


def test_after_ctrl_c_it_says_what_is_done(opened: Opened, monkeypatch: pytest.MonkeyPatch):
    opened.model = ColourScorer()
    monkeypatch.setattr("unitok.commands.baseline_pictures.TOGETHER", 1)
    whole = opened.model.classify

    def classify(images: Any, labels: Any) -> Any:
        if images[0].getpixel((0, 0)) == (0, 0, 255):
            raise KeyboardInterrupt
        return whole(images, labels)

    monkeypatch.setattr(opened.model, "classify", classify)
    result = run("classify", picture("a.png", "red"), picture("b.png", "blue"), *LABELS)
    assert result.exit_code == 130
    assert one_line(result.stderr) == "unitok: stopped; 1 of 2 files are done"


def test_search_finds_pictures_in_folders(opened: Opened):
    opened.model = ColourScorer()
    Path("photos/more").mkdir(parents=True)
    picture("photos/a.png", "red")
    picture("photos/more/b.png", "blue")
    Path("photos/notes.txt").write_text("no picture")
    Path("photos/broken.png").write_text("no picture")
    last = picture("c.png", "lime")
    result = run("search", "something blue", last, "photos", last, "-k", "2", "--store", "kept.st")
    assert result.exit_code == 1
    assert "photos/broken.png" in one_line(result.stderr)
    first, second = result.stdout.splitlines()
    assert first.startswith("photos/more/b.png: 10.0") and second.startswith(("c.png", "photos/a"))
    opened.model.encode_images = None  # the features are kept
    again = run("search", "red", last, "photos", "--store", "kept.st", "--json")
    assert json.loads(again.stdout.splitlines()[0])["file"] == "photos/a.png"


def test_a_search_for_nothing_is_an_error(opened: Opened):
    result = run("search", " ", picture("a.png"))
    assert (result.exit_code, opened.asked) == (2, {})
    assert one_line(result.stderr) == "unitok: the text is empty; say what to look for"


def test_a_folder_without_pictures_is_named(opened: Opened):
    opened.model = ColourScorer()
    Path("empty").mkdir()
    result = run("search", "red", "empty")
    assert (result.exit_code, one_line(result.stderr)) == (2, "unitok: empty has no pictures")


# --- places --------------------------------------------------------------------------------------


class Finder:
    """Finds the first label in every picture that is wide."""

    def detect(self, image: Any, labels: Any, threshold: float) -> list[Detection]:
        wide = open_picture(image).width > 12
        return [Detection(labels[0], (1.4, 2.0, 3.0, 4.6), 0.75)] if wide else []

    def segment(self, image: Any, points: Any, boxes: Any) -> Segmentation:
        width, height = open_picture(image).size
        masks = torch.zeros(len(points) + len(boxes), height, width, dtype=torch.bool)
        masks[:, 2:4, 3:6] = True
        self.asked = points, boxes
        return Segmentation(masks, (0.5, 0.25, 0.125)[: len(masks)])


def test_detect_prints_a_line_per_thing(opened: Opened):
    opened.model = Finder()
    files = [picture("a.png", size=(20, 10)), picture("b.png"), "none.png"]
    result = run("detect", *files, "--label", "cat", "--label", "dog")
    assert result.stdout == "a.png: cat 0.750 at 1,2,3,5\nb.png: nothing\n"
    assert result.exit_code == 1 and "none.png" in one_line(result.stderr)
    result = run("detect", *files[:2], "--label", "cat", "--json")
    said = [json.loads(line) for line in result.stdout.splitlines()]
    box = [1.4, 2.0, 3.0, 4.6]
    assert said[0]["detections"] == [{"label": "cat", "box": box, "score": 0.75}]
    assert said[1] == {"file": "b.png", "detections": []} and result.exit_code == 0


class PickyFinder(Finder):
    """Fails at pictures that are not wide."""

    def detect(self, image: Any, labels: Any, threshold: float) -> list[Detection]:
        if not (found := super().detect(image, labels, threshold)):
            raise RuntimeError("too narrow")
        return [replace(one, box=(-0.2, *one.box[1:])) for one in found]


def test_a_picture_that_cannot_be_looked_at_loses_no_other(opened: Opened):
    opened.model = PickyFinder()
    result = run("detect", picture("b.png"), picture("a.png", size=(20, 10)), "--label", "cat")
    assert (result.exit_code, result.stdout) == (1, "a.png: cat 0.750 at 0,2,3,5\n")
    assert one_line(result.stderr) == "unitok: b.png: too narrow"


def test_segment_saves_a_mask_of_each_thing(opened: Opened):
    opened.model = Finder()
    words = ["--point", "5,4", "--box", "1,2,9,8", "--point", "1.5,2"]
    result = run("segment", picture("a.png"), "-o", "m/mask.png", *words)
    assert result.stdout.splitlines() == [
        "m/mask-0.png: 5,4, score 0.500",
        "m/mask-1.png: 1.5,2, score 0.250",
        "m/mask-2.png: 1,2,9,8, score 0.125",
    ]
    assert opened.model.asked == ([(5, 4), (1.5, 2)], [(1, 2, 9, 8)])
    mask = Image.open("m/mask-1.png")
    assert (mask.mode, mask.size) == ("L", (12, 10))
    assert (np.asarray(mask) == 255).sum() == 6 and (np.asarray(mask) == 0).sum() == 114


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give --point or --box for each thing"),
        (["--point", "1,2,3"], "--point must be like 120,80, in pixels, not '1,2,3'"),
        (["--box", "1,a,2,3"], "--box must be like 10,20,200,180, in pixels, not '1,a,2,3'"),
    ],
)
def test_wrong_places_are_refused(words: list[str], message: str, opened: Opened):
    result = run("segment", picture("a.png"), "-o", "m.png", *words)
    assert (result.exit_code, opened.asked) == (2, {}) and message in one_line(result.stderr)


# --- features ------------------------------------------------------------------------------------


class Encoder:
    """Its features are the mean colours."""

    name, width = "colours", 3

    def features(self, images: Any) -> torch.Tensor:
        return torch.stack([torch.from_numpy(np.asarray(i).mean((0, 1))) for i in images]).float()


def test_features_are_written_with_the_names_of_their_files(opened: Opened):
    opened.model = Encoder()
    Path("photos").mkdir()
    picture("photos/b.png", "blue")
    picture("photos/a.png", "red")
    result = run("features", "photos", "none.png", "-o", "f.safetensors", "--pooling", "mean")
    assert result.exit_code == 1 and "none.png" in one_line(result.stderr)
    assert result.stdout == "f.safetensors: 2 x 3 features\n"
    assert opened.options == {"pooling": "mean"}
    with safe_open("f.safetensors", "pt") as file:
        rows, told = file.get_tensor("features"), file.metadata()
    assert json.loads(told["files"]) == ["photos/a.png", "photos/b.png"]
    assert rows.tolist() == [[255, 0, 0], [0, 0, 255]] and told["model"] == "colours"


class OfClips(ClipEncoder):
    """Counts the frames of clips."""

    def __init__(self) -> None:
        self.folder = Path("clips")
        self.width = 1

    def features(self, clips: Any) -> torch.Tensor:
        return torch.tensor([[float(len(clip.frames))] for clip in clips])


def test_a_folder_is_a_clip_for_an_encoder_of_clips(opened: Opened):
    opened.model = OfClips()
    for folder, count in (("one", 3), ("two", 5)):
        Path(folder).mkdir()
        for i in range(count):
            picture(f"{folder}/{i}.png")
    result = run("features", "one", "two", picture("a.png"), "-o", "f.safetensors", "--json")
    assert result.exit_code == 1
    assert one_line(result.stderr).endswith(
        "a.png is no folder; give one with the frames of a clip"
    )
    assert json.loads(one_line(result.stdout))["files"] == ["one", "two"]
    with safe_open("f.safetensors", "pt") as file:
        assert file.get_tensor("features").tolist() == [[3], [5]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.png", "-o", "f.npz"], "f.npz: name a safetensors file"),
        (["none.png", "-o", "f.safetensors"], "no file could be read"),
    ],
)
def test_no_file_is_written_without_features(words: list[str], message: str, opened: Opened):
    opened.model = Encoder()
    result = run("features", *words)
    assert result.exit_code == 2 and message in result.stderr.splitlines()[-1]
    assert not list(Path().glob("f.*"))


# --- sounds --------------------------------------------------------------------------------------


class Recognizer:
    """Says how long a sound is."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def transcribe(self, audio: Audio) -> str:
        if self.error:
            raise self.error
        return f" {audio.samples.shape[1]} samples\n at {audio.rate} "


def test_the_text_of_one_file_is_printed_alone(opened: Opened):
    opened.model = Recognizer()
    result = run("transcribe", sound("a.wav"))
    assert (result.exit_code, result.stdout) == (0, "4000 samples at 8000\n")


class Forgetful(Recognizer):
    """Has no memory for what is longer than a second."""

    def transcribe(self, audio: Audio) -> str:
        if audio.samples.shape[1] > audio.rate:
            raise RuntimeError("not enough memory")
        return super().transcribe(audio)


def test_a_sound_that_cannot_be_transcribed_loses_no_other(opened: Opened):
    opened.model = Forgetful()
    Path("long.wav").write_bytes(wav_bytes(Audio(np.zeros((1, 99), np.float32), 9)))
    result = run("transcribe", "long.wav", sound("a.wav"))
    assert (result.exit_code, result.stdout) == (1, "a.wav: 4000 samples at 8000\n")
    assert one_line(result.stderr) == "unitok: long.wav: not enough memory"


def test_the_texts_of_several_files_have_their_names(opened: Opened):
    opened.model = Recognizer()
    Path("b.wav").write_bytes(b"no sound")
    words = ["transcribe", sound("a.wav"), "b.wav", "https://example.org/c.wav"]
    result = run(*words)
    assert (result.exit_code, result.stdout) == (1, "a.wav: 4000 samples at 8000\n")
    first, second = result.stderr.splitlines()
    assert first.startswith("unitok: b.wav is no .wav file of PCM:")
    assert second.endswith("c.wav is a URL; download the sound, and give its file")
    said = json.loads(run(*words, "--json").stdout)
    assert said == {"file": "a.wav", "text": "4000 samples at 8000"}


class Composer:
    """Makes a tone."""

    def generate(self, prompt: str, seconds: float, seed: int) -> Audio:
        if seconds > 30:
            raise ValueError("seconds must be above 0 and at most 30, not 31")
        self.asked = prompt, seconds, seed
        return Audio(np.full((2, int(seconds * 800)), 0.5, np.float32), 800)


def test_compose_saves_a_wav_file(opened: Opened):
    opened.model = Composer()
    words = ["compose", "a waltz", "-o", "m/waltz.wav", "--seconds", "1.5", "--seed", "4"]
    result = run(*words, "--guidance", "2")
    assert (result.exit_code, result.stdout) == (0, "m/waltz.wav: seed 4, 1.5 seconds\n")
    assert opened.model.asked == ("a waltz", 1.5, 4) and opened.options == {"guidance": 2}
    with wave.open("m/waltz.wav") as file:
        assert (file.getnchannels(), file.getframerate(), file.getnframes()) == (2, 800, 1200)
    said = json.loads(run(*words, "--json").stdout)
    assert said == {"prompt": "a waltz", "file": "m/waltz.wav", "seed": 4, "seconds": 1.5}


def test_wrong_music_is_one_line(opened: Opened):
    opened.model = Composer()
    result = run("compose", "a waltz", "-o", "a.mp3")
    assert one_line(result.stderr) == "unitok: a.mp3: name a .wav file, such as a.wav"
    result = run("compose", "a waltz", "-o", "a.wav", "--seconds", "31")
    assert (result.exit_code, Path("a.wav").exists()) == (2, False)
    assert "at most 30" in one_line(result.stderr)
