"""Every command of `unitok`, and what it says when it is used wrongly."""

import io
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import pytest
from PIL import Image

import unitok
from unitok.cli import main
from unitok.flags import flag_name
from unitok.reporting import in_order
from unitok.requests import Caption, Draw, Edit, options_of


def one_line(text: str) -> str:
    assert text.endswith("\n") and text.count("\n") == 1, text
    return text.strip()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def huge_png(path: Path, side: int) -> Path:
    """A PNG of a few bytes whose header promises side x side pixels."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + header
        + png_chunk(b"IDAT", zlib.compress(b"\0" * 99))
        + png_chunk(b"IEND", b"")
    )
    return path


# --- help ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", ["demo", "caption", "draw", "edit", "chat", "batch", "info", "save"]
)
def test_help_teaches_with_an_example(command, run):
    result = run(command, "--help", model=None)
    assert result.exit_code == 0
    assert f"Example: unitok {command}" in result.stdout
    for option in ("--model", "--device", "--dtype", "--memory", "--strict", "--adapter"):
        assert option in result.stdout


@pytest.mark.parametrize(
    ("command", "made"), [("caption", Caption), ("draw", Draw), ("edit", Edit)]
)
def test_every_option_is_a_flag(command, made, run):
    flags = {flag_name(spec.flag) for spec in options_of(made).values()} - {
        "--width",
        "--height",
        "--prompt",
    }
    told = run(command, "--help", model=None).stdout
    assert [flag for flag in flags if flag not in told] == []


def test_the_keys_of_json_lines_are_in_the_help(run):
    told = run("batch", "--help", model=None).stdout
    keys = {**options_of(Caption), **options_of(Draw), **options_of(Edit)}
    assert [key for key in keys if key not in told] == []


def test_the_help_of_batch_teaches_ray(run):
    told = run("batch", "--help", model=None).stdout
    assert "Example: unitok batch work.jsonl -o results --ray local --replicas 4" in told
    flags = ("--ray", "--replicas", "--cpus-per-replica", "--gpus-per-replica", "--format")
    assert [flag for flag in flags if flag not in told] == []


def test_the_version_is_that_of_the_package(run):
    result = run("--version", model=None)
    assert (result.exit_code, result.stdout) == (0, f"unitok {unitok.__version__}\n")


def test_help_comes_without_torch():
    code = "import sys, unitok.cli; sys.exit('torch' in sys.modules)"
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], env=env, check=True)


def test_without_a_command_comes_the_help(run):
    assert "Commands" in run(model=None).output


# --- caption -------------------------------------------------------------------------------------


def test_caption_prints_a_line_per_file_in_their_order(run, scene):
    other = scene.with_name("other.png")
    Image.new("RGB", (64, 64), "green").save(other)
    result = run("caption", str(scene), str(other), str(scene))
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [str(scene), str(other), str(scene)]
    assert lines[0] == lines[2]


def test_results_wait_for_those_before_them():
    results = [unitok.TextResult("", 0, "stop", 1, 1, 0.0, index=i) for i in (2, 0, 1, 3)]
    given = in_order(results)
    assert [r.index for r in given] == [0, 1, 2, 3]


def test_caption_as_json_says_what_the_api_says(run, scene, short_folder):
    result = run("caption", str(scene), "--question", "is there a cat?", "--json")
    said = json.loads(one_line(result.stdout))
    wanted = unitok.load(short_folder).caption(scene, "is there a cat?")
    assert said["file"] == str(scene)
    assert said["text"] == wanted.text
    assert said["completion_tokens"] == wanted.completion_tokens


def test_caption_takes_what_the_api_takes(run, scene, short_folder):
    options = {
        "question": "is there a cat?",
        "system": "a dog",
        "max_tokens": 9,
        "temperature": 0.9,
        "top_k": 50,
        "top_p": 0.9,
        "min_p": 0.01,
        "repetition_penalty": 1.1,
        "seed": 5,
    }
    words = [word for name, value in options.items() for word in (flag_name(name), str(value))]
    flags = ["--logprobs", "--branch-logprobs", "--json", "--stop", "zebra", "--stop", "e"]
    said = json.loads(one_line(run("caption", str(scene), *words, *flags).stdout))
    more = {"stop": ["zebra", "e"], "logprobs": True, "branch_logprobs": True}
    wanted = unitok.load(short_folder).caption(scene, **options, **more)
    assert said["text"] == wanted.text
    assert said["seed"] == 5
    assert said["finish_reason"] == wanted.finish_reason
    assert said["logprobs"] == list(wanted.logprobs)
    assert said["branch_logprobs"] == list(wanted.branch_logprobs)


def test_a_wrong_option_is_told_once_and_before_a_model_is_looked_for(run, scene):
    for flag, value, told in (
        ("--temperature", "-1", "temperature must be 0 or more, not -1.0"),
        ("--top-p", "nan", "top_p must be finite, not nan"),
        ("--max-tokens", "0", "max_tokens must be at least 1, not 0"),
    ):
        result = run("caption", str(scene), str(scene), flag, value, model=Path("nowhere"))
        assert (result.exit_code, one_line(result.stderr)) == (2, f"unitok: {told}")


@pytest.mark.parametrize("flag", ["--logprobs", "--branch-logprobs"])
def test_logprobs_need_json(flag, run, scene):
    for words in (["caption", str(scene)], ["draw", "a cat", "-o", "cat.png"]):
        result = run(*words, flag, model=Path("nowhere"))
        told = f"unitok: {flag} appears only in JSON: add --json"
        assert (result.exit_code, one_line(result.stderr)) == (2, told)


def test_a_file_that_cannot_be_read_does_not_stop_the_others(run, scene):
    result = run("caption", "nowhere.png", str(scene))
    assert result.exit_code == 1
    assert one_line(result.stderr) == "unitok: nowhere.png: no such file"
    assert one_line(result.stdout).startswith(f"{scene}: ")


def test_a_text_file_named_png_is_no_picture(run, tmp_path):
    path = tmp_path / "letter.png"
    path.write_text("Dear reader")
    result = run("caption", str(path))
    assert result.exit_code == 1
    assert one_line(result.stderr) == f"unitok: {path} is not a picture"


def test_a_cut_off_picture_is_told(run, scene):
    noise = Image.effect_noise((64, 64), 90)
    noise.save(scene)
    scene.write_bytes(scene.read_bytes()[:1500])
    result = run("caption", str(scene))
    assert result.exit_code == 1
    assert f"{scene} is cut off or damaged" in one_line(result.stderr)


@pytest.mark.parametrize("side", [10_000, 50_000])
def test_a_huge_picture_is_refused_before_it_is_decoded(side, run, tmp_path):
    result = run("caption", str(huge_png(tmp_path / "huge.png", side)))
    assert result.exit_code == 1
    assert "pixels" in one_line(result.stderr)
    assert result.stdout == ""


def test_a_folder_and_a_url_are_told_with_what_to_do(run, scene):
    for word, told in (
        (str(scene.parent), f"{scene.parent} is a folder; give the files in it"),
        (
            "https://a.org/b.png",
            "https://a.org/b.png is a URL; download the picture, and give its file",
        ),
    ):
        result = run("caption", word)
        assert (result.exit_code, one_line(result.stderr)) == (1, f"unitok: {told}")


def test_a_picture_comes_from_stdin(run, scene):
    result = run("caption", "-", str(scene), typed=scene.read_bytes())
    assert result.exit_code == 0
    lines = [line.split(": ", 1) for line in result.stdout.splitlines()]
    assert lines == [["-", lines[1][1]], [str(scene), lines[1][1]]]
    said = json.loads(one_line(run("caption", "-", "--json", typed=scene.read_bytes()).stdout))
    assert said["file"] == "-" and said["text"].split() == lines[0][1].split()


def test_what_is_wrong_with_stdin_is_told(run):
    letter = run("caption", "-", typed=b"Dear reader")
    assert (letter.exit_code, one_line(letter.stderr)) == (1, "unitok: stdin is not a picture")
    empty = run("caption", "-", model=Path("no model is looked for"))
    assert (empty.exit_code, one_line(empty.stderr)) == (2, "unitok: stdin is empty")


def test_a_terminal_is_no_picture(tmp_path, short_folder):
    ours, theirs = os.openpty()
    try:
        for words in (["caption", "-"], ["edit", "-", "make it night", "-o", "night.png"]):
            done = subprocess.run(
                [sys.executable, "-m", "unitok", *words, "--model", "no model is looked for"],
                stdin=theirs,
                cwd=tmp_path,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
                capture_output=True,
                text=True,
            )
            assert done.returncode == 2
            assert one_line(done.stderr).startswith("unitok: stdin is a terminal; pipe a picture")
    finally:
        os.close(ours)
        os.close(theirs)


# --- draw ----------------------------------------------------------------------------------------


def test_draw_saves_the_picture_of_the_seed_and_names_both(run, short_folder):
    result = run("draw", "a cat", "-o", "new/cat.png", "--seed", "7", "--guidance", "1.5")
    assert result.exit_code == 0
    assert one_line(result.stdout) == f"{Path('new/cat.png')}: seed 7"
    drawn = unitok.load(short_folder).draw("a cat", seed=7, guidance=1.5).image
    with Image.open("new/cat.png") as saved:
        assert saved.info["prompt"] == "a cat"
        assert saved.info["seed"] == "7"
        assert saved.convert("RGB").tobytes() == drawn.tobytes()


def test_several_drawings_are_numbered(run, short_folder):
    result = run("draw", "a cat", "-o", "cat.png", "-n", "3", "--seed", "4")
    names = ["cat-0.png", "cat-1.png", "cat-2.png"]
    assert [line.split(":")[0] for line in result.stdout.splitlines()] == names
    assert sorted(p.name for p in Path.cwd().iterdir()) == names
    images = unitok.load(short_folder).draw("a cat", n=3, seed=4).images
    for name, image in zip(names, images, strict=True):
        with Image.open(name) as saved:
            assert saved.tobytes() == image.tobytes()


def test_draw_as_json_says_what_the_api_says(run, short_folder):
    words = ["-n", "2", "--seed", "4", "--json", "--logprobs"]
    said = json.loads(one_line(run("draw", "a cat", "-o", "cat.png", *words).stdout))
    wanted = unitok.load(short_folder).draw("a cat", n=2, seed=4, logprobs=True)
    assert said.pop("seconds") > 0
    assert said == {
        "prompt": "a cat",
        "files": ["cat-0.png", "cat-1.png"],
        "seed": 4,
        "finish_reason": "complete",
        "prompt_tokens": wanted.prompt_tokens,
        "completion_tokens": wanted.completion_tokens,
        "logprobs": [list(each) for each in wanted.logprobs or ()],
    }
    assert all(Path(name).exists() for name in said["files"])


def test_what_cannot_be_painted_is_told_and_leaves_the_file_that_was_there(run, monkeypatch):
    Path("cat.png").write_text("mine")

    def broken(*_, **__):
        raise OSError("the disk is full")

    monkeypatch.setattr("unitok.results.Picture.save", broken)
    result = run("draw", "a cat", "-o", "cat.png")
    assert (result.exit_code, one_line(result.stderr)) == (2, "unitok: the disk is full")
    assert [path.read_text() for path in Path.cwd().iterdir()] == ["mine"]


def test_a_drawing_may_be_of_another_format(run):
    assert run("draw", "a cat", "-o", "cat.jpg").exit_code == 0
    with Image.open("cat.jpg") as saved:
        assert saved.format == "JPEG"


def test_min_p_leaves_the_likeliest_codes(run):
    for name, options in (("one", ["--min-p", "1"]), ("two", ["--temperature", "0"])):
        assert run("draw", "a cat", "-o", f"{name}.png", "--seed", "1", *options).exit_code == 0
    with Image.open("one.png") as one, Image.open("two.png") as two:
        assert one.tobytes() == two.tobytes()


def test_a_seed_that_is_told_draws_the_same_again(run):
    seed = run("draw", "a cat", "-o", "one.png").stdout.split()[-1]
    run("draw", "a cat", "-o", "two.png", "--seed", seed)
    with Image.open("one.png") as one, Image.open("two.png") as two:
        assert one.tobytes() == two.tobytes()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["  "], "the prompt is empty"),
        (["cat " * 3000], "shorten it"),
        (["a cat", "--temperature", "-1"], "temperature must be 0 or more"),
        (["a cat", "--top-p", "2"], "top_p"),
        (["a cat", "--top-k", "-2"], "top_k"),
        (["a cat", "--min-p", "2"], "min_p must be from 0 to 1"),
        (["a cat", "--guidance", "nan"], "finite"),
        (["a cat", "--seed", str(2**70)], "seed must fit"),
        (["a cat", "--negative-prompt", "dog " * 3000], "shorten it"),
        (["a cat", "-o", "cat.xyz"], "cat.xyz: name a picture, such as cat.png"),
        (["a cat", "-o", "cat"], "cat: name a picture"),
        (["a cat", "-o", "plain/cat.png"], "plain is not a folder"),
        (["a cat", "-o", "folder.png"], "folder.png is a folder"),
        (["a cat", "--size", "big"], "such as 768x512"),
        (["a cat", "--size", "128x64"], "draws 64 x 64 pixels only, not 128 x 64"),
        (["a cat", "--memory", "much"], "memory must be"),
        (["a cat", "--memory", "12"], "memory must hold at least one block"),
        (["a cat", "--memory", "120%"], "memory as a share must be above 0"),
        (["a cat", "--dtype", "int8"], "dtype must be one of"),
        (["a cat", "--device", "toaster"], "toaster"),
    ],
)
def test_a_wrong_drawing_is_one_line_and_code_2(arguments, told, run):
    Path("plain").write_text("")
    Path("folder.png").mkdir()
    result = run("draw", *(arguments if "-o" in arguments else [*arguments, "-o", "cat.png"]))
    assert result.exit_code == 2
    complaints = [line for line in result.stderr.splitlines() if not line.startswith("warning:")]
    assert len(complaints) == 1 and complaints[0].startswith("unitok: ")
    assert told in complaints[0]
    assert not Path("cat.png").exists()


def test_an_output_folder_that_cannot_be_written_is_told_before_any_work(run, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    result = run("draw", "a cat", "-o", "locked/cat.png", model=Path("no model is looked for"))
    assert result.exit_code == 2
    assert one_line(result.stderr) == "unitok: locked: cannot be written"


@pytest.mark.parametrize("arguments", [["--bogus"], ["-n", "0"], ["--seed", "x"]])
def test_unknown_options_and_values_are_usage_errors(arguments, run):
    result = run("draw", "a cat", "-o", "cat.png", *arguments)
    assert result.exit_code == 2
    assert "Usage: unitok draw" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["draw", "a cat", "-o", "cat.png", "--sede", "7"], "--seed"),
        (["caption", "scene.png", "--temprature", "1"], "--temperature"),
        (["info", "--devise", "cpu"], "--device"),
        (["drw", "a cat"], "draw"),
    ],
)
def test_a_slip_is_told_with_what_may_have_been_meant(words, meant, run):
    result = run(*words, model=None)
    assert result.exit_code == 2
    assert "No such" in result.stderr and meant in result.stderr


def test_verbose_says_what_is_done_and_quiet_says_nothing(run, scene):
    question = ["--question", "is there a zebra?"]
    lines = run("caption", str(scene), "-v", *question).stderr.splitlines()
    assert lines[0].startswith("info: loading ")
    assert any(line.startswith("info: loaded untrained in ") for line in lines)
    assert lines[-1] == "warning: this model never saw the word 'zebra'"
    assert run("caption", str(scene), "--quiet", *question).stderr == ""
    both = run("info", "-q", "-vv")
    assert (both.exit_code, both.stderr) == (2, "unitok: give --verbose or --quiet, not both\n")


def test_an_unknown_setting_is_a_warning_and_with_strict_an_error(run, short_folder, tmp_path):
    odd = Path(shutil.copytree(short_folder, tmp_path / "odd"))
    config = json.loads((odd / "config.json").read_text())
    (odd / "config.json").write_text(json.dumps(config | {"mystery": 1}))
    known, told = "config.json has mystery, which unitok does not know", run("info", model=odd)
    assert told.exit_code == 0 and one_line(told.stderr).startswith(f"warning: {odd}: {known}")
    refused = run("info", "--strict", model=odd)
    assert refused.exit_code == 2 and one_line(refused.stderr).startswith(f"unitok: {odd}: {known}")


def test_a_word_the_model_never_saw_is_one_warning(run, scene):
    result = run("caption", str(scene), str(scene), "--question", "is there a zebra?")
    assert result.exit_code == 0
    assert one_line(result.stderr) == "warning: this model never saw the word 'zebra'"


def test_a_warning_stays_short_however_long_the_word(run, untrained_folder):
    result = run("draw", "z" * 1000, "-o", "z.png", model=untrained_folder)
    assert result.exit_code == 0
    assert len(one_line(result.stderr)) < 500


def test_a_model_that_is_not_there_is_told(run):
    result = run("info", model=Path("nowhere"))
    assert result.exit_code == 2
    assert one_line(result.stderr) == "unitok: nowhere: no such folder"


def test_ctrl_c_ends_with_one_line_and_code_130(run, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(unitok.Model, "stream", interrupted)
    result = run("draw", "a cat", "-o", "cat.png")
    assert result.exit_code == 130
    assert one_line(result.stderr) == "unitok: stopped"


# --- info ----------------------------------------------------------------------------------------


def test_info_tells_the_size_of_the_pool(run, short_folder):
    facts = unitok.load(short_folder, memory="1MB").info()
    result = run("info", "--memory", "1MB")
    assert result.exit_code == 0
    assert f"{facts.kv_memory:,} bytes, {facts.kv_tokens:,} tokens" in result.stdout
    assert "guidance" in result.stdout


def test_the_pool_may_take_a_share_of_what_is_free(run, short_folder, monkeypatch):
    monkeypatch.setattr("unitok_engine.config.free_memory", lambda device: 2**21)
    for share in ("50%", "0.5"):
        facts = json.loads(one_line(run("info", "--json", "--memory", share).stdout))
        assert facts["kv_memory"] == 2**20


def test_info_as_json_holds_every_fact(run):
    facts = json.loads(one_line(run("info", "--json", "--memory", str(2**20)).stdout))
    assert facts["kv_memory"] == 2**20
    assert facts["picture_tokens"] == 64
    assert facts["temperature"] == 0.6


# --- the program itself --------------------------------------------------------------------------


def test_no_step_is_made_when_a_command_has_ended(run, scene):
    assert run("caption", str(scene), str(scene)).exit_code == 0
    assert run("draw", "a cat", "-o", "cat.png").exit_code == 0
    assert "unitok-driver" not in [thread.name for thread in threading.enumerate()]


def test_a_file_may_have_a_name_that_is_no_unicode(scene, short_folder, monkeypatch):
    odd = os.fsdecode(os.fsencode(scene.parent) + b"/\xff.png")
    os.link(scene, odd)
    words = ["unitok", "caption", odd, "--max-tokens", "2", "--model", str(short_folder)]
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(sys, "stdout", stdout)
    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit) as end:
            main()
    finally:
        signal.signal(signal.SIGINT, before)
    assert end.value.code == 0
    assert stdout.buffer.getvalue().startswith(os.fsencode(scene.parent) + rb"/\udcff.png: ")


def test_the_program_runs_from_another_folder(tmp_path, short_folder):
    paths = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-m", "unitok.cli", "info", "--model", short_folder],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "K/V pool" in done.stdout
    assert done.stderr == ""
