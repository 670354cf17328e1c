"""Teams of OpenMP threads are given up where nothing computes."""

import subprocess
import sys

CODE = """
import os, threading
import torch
from unitok.openmp import give_up_team

def threads():
    return len(os.listdir("/proc/self/task"))

torch.set_num_threads(3)
work = torch.ones(2_000_000)
give_up_team()
before = threads()
work.sum()
amid = threads()
give_up_team()
after = threads()
give_up_team()  # twice does no harm
assert work.sum() == 2_000_000, "there is a new team when one is needed"
print(amid - before, after - before)
"""


def test_a_team_is_given_up_and_made_anew():
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["2", "0"]
