"""The build that is committed is the one of the sources."""

import shutil
import subprocess
from pathlib import Path

from unitok.server.page_files import FOLDER

SOURCES = Path(__file__).parents[2] / "page"


def contents(folder: Path) -> dict[str, bytes]:
    """What each file under a folder holds."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_the_committed_build_is_up_to_date(tmp_path: Path):
    npm = shutil.which("npm")
    assert npm and (SOURCES / "node_modules").is_dir(), "make page installs what this test needs"
    command = [npm, "run", "build", "--", "--outDir", str(tmp_path), "--emptyOutDir"]
    done = subprocess.run(command, cwd=SOURCES, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert contents(tmp_path) == contents(FOLDER), "make page, and commit what it has built"
