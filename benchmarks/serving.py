"""What the server costs beside the library, and how it stands a crowd."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from itertools import accumulate, count
from pathlib import Path

from benchmarks.http_clients import Answer, closed_loop, open_loop
from benchmarks.report import Result
from benchmarks.serving_mix import Item, in_order, is_right, mixed
from benchmarks.setting import Setting
from unitok.api import Model
from unitok.results import Result as ModelResult

CLIENTS = 64
CPU, LATENCY, OVERLOAD = 1.15, 1.15, 1.3  # x
LOAD = 0.7  # of what the library can do
LIMIT = 32  # answers and pictures at once, of the server that is overloaded
START_SECONDS = 120.0
TICK, PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")


class ServerProcess:
    """`unitok serve` in a process of its own.

    Attributes:
        pid: The process.
        url: Where it is.
    """

    def __init__(self, pid: int, url: str) -> None:
        """Keep both."""
        self.pid, self.url = pid, url

    @property
    def cpu_seconds(self) -> float:
        """What all its threads have computed so far."""
        text = Path(f"/proc/{self.pid}/stat").read_text()
        fields = text.rpartition(")")[2].split()  # a name may have blanks
        return (int(fields[11]) + int(fields[12])) / TICK

    @property
    def resident_bytes(self) -> int:
        """The memory that it has."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * PAGE


@contextmanager
def server(*options: str) -> Iterator[ServerProcess]:
    """A server of the embedded model in fp32, with its log in a file.

    Raises:
        RuntimeError: It does not start.
    """
    command = [sys.executable, "-m", "unitok", "serve", "--port", "0", "--device", "cpu"]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [*command, "--dtype", "float32", *options],
                stderr=file,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )
        try:
            yield ServerProcess(process.pid, _url_in(log, process))
        finally:
            process.kill()
            process.wait()


def _url_in(log: Path, process: subprocess.Popen[bytes]) -> str:
    """Where a server is, by the first line that it writes."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        first = log.read_text().partition("\n")
        if first[1] and "http://" in first[0]:
            return first[0][first[0].index("http://") :]
        time.sleep(0.05)
    raise RuntimeError(f"the server did not start: {log.read_text()}")


class Contest:
    """Gives the same work to the library and to a server, and compares what they answer.

    Attributes:
        compared: How many answers were compared.
        wrong: How many of them were not the library's.
    """

    def __init__(self, model: Model, clients: ProcessPoolExecutor) -> None:
        """Compare nothing yet.

        Args:
            model: The library's.
            clients: The process that asks servers.
        """
        self._model, self._clients = model, clients
        self.compared = self.wrong = 0

    def run(self, items: Sequence[Item]) -> list[ModelResult]:
        """The library's results, in order."""
        return in_order(list(self._model.run([item.request for item in items])))

    def ask(self, url: str, items: Sequence[Item], clients: int) -> list[Answer]:
        """A server's answers to so many clients."""
        wanted = [item.wanted for item in items]
        return self._clients.submit(closed_loop, url, wanted, clients).result()

    def ask_at(self, url: str, items: Sequence[Item], moments: Sequence[float]) -> list[Answer]:
        """A server's answers to requests that come at moments."""
        wanted = [item.wanted for item in items]
        return self._clients.submit(open_loop, url, wanted, moments).result()

    def compare(self, answers: Sequence[Answer], results: Sequence[ModelResult]) -> None:
        """Count the answers that are not the library's."""
        self.compared += len(answers)
        self.wrong += sum(not is_right(*pair) for pair in zip(answers, results, strict=True))

    def latencies(self, items: Sequence[Item], moments: Sequence[float]) -> list[float]:
        """The seconds from each request's moment to the library's result."""
        return asyncio.run(self._latencies(items, moments))

    async def _latencies(self, items: Sequence[Item], moments: Sequence[float]) -> list[float]:
        start = time.monotonic()

        async def one(item: Item, moment: float) -> float:
            await asyncio.sleep(max(0.0, start + moment - time.monotonic()))
            await (await self._model.asubmit(item.request))
            return time.monotonic() - start - moment

        return await asyncio.gather(*map(one, items, moments))


def serving(setting: Setting) -> Iterator[Result]:
    """The embedded model, fp32, behind `unitok serve` in a process of its own, beside `model.run`
    in this one; clients in a third process. 500 mixed requests (chats about pictures, plain chats,
    edits by masks, drawings; half of chats and drawings streamed) from 64 clients, who send the
    next one when they have an answer: CPU seconds of the server's process over those of this one
    for `model.run` (pairs of the same requests, each pair others), and the answers that are not
    the library's byte for byte. Mean latency when requests come at random (a Poisson stream) at
    70% of the rate that `model.run` reached, over that of `model.asubmit` at the same moments. A
    server that admits 32 at once and gets a Poisson stream of twice the rate that it reached with
    32 clients: the 99th percentile of the latency of what it takes in, over that with 32 clients
    before and after, and the requests that were neither done nor refused with a time to come
    again."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as clients:
        contest = Contest(setting.api, clients)
        with server() as ours:
            rate = yield from costs(setting, contest, ours)
            yield from delays(setting, contest, ours, rate)
        with server("--max-requests", str(setting.either(LIMIT, 2))) as small:
            yield from crowds(setting, contest, small)


_seeds = count(70_000)


def costs(setting: Setting, contest: Contest, ours: ServerProcess) -> Iterator[Result]:
    """CPU seconds beside the library's. Returns the requests a second that the library did."""
    size, clients = setting.either(500, 10), setting.either(CLIENTS, 4)
    ratios, rates = list[float](), list[float]()
    contest.run(mixed(size // 5, next(_seeds)))
    contest.ask(ours.url, mixed(size // 5, next(_seeds)), clients)
    used = {"ours": 0.0, "library": 0.0}
    for turn in range(setting.rounds(5)):
        items = mixed(size, next(_seeds))
        found: dict[str, tuple[float, list]] = {}
        for side in sorted(used, reverse=bool(turn % 2)):
            start, before, before_ours = time.monotonic(), time.process_time(), ours.cpu_seconds
            if side == "ours":
                answers = contest.ask(ours.url, items, clients)
                found[side] = ours.cpu_seconds - before_ours, answers
            else:
                results = contest.run(items)
                found[side] = time.process_time() - before, results
                rates.append(size / (time.monotonic() - start))
            used[side] += found[side][0]
        ratios.append(found["ours"][0] / found["library"][0])
        contest.compare(found["ours"][1], found["library"][1])
    yield Result(
        f"{size} mixed requests of {clients} clients: CPU seconds over those of model.run",
        statistics.median(ratios), "x", CPU, False,
        f"server {used['ours'] / len(ratios):.1f} s, library {used['library'] / len(ratios):.1f} s",
    )  # fmt: skip
    yield Result(
        f"{size} mixed requests of {clients} clients: answers that are lost or wrong",
        contest.wrong, "", 0, False, f"of {contest.compared}",
    )  # fmt: skip
    return statistics.median(rates)


def delays(
    setting: Setting, contest: Contest, ours: ServerProcess, rate: float
) -> Iterator[Result]:
    """Mean latency of requests that come at random, beside the library's."""
    size, means = setting.either(300, 4), {"ours": list[float](), "library": list[float]()}
    for turn in range(setting.rounds(4)):
        items, chance = mixed(size, next(_seeds)), random.Random(turn)
        moments = list(accumulate(chance.expovariate(LOAD * rate) for _ in range(size)))
        for side in sorted(means, reverse=bool(turn % 2)):
            if side == "ours":
                seconds = [answer.seconds for answer in contest.ask_at(ours.url, items, moments)]
            else:
                seconds = contest.latencies(items, moments)
            means[side].append(statistics.mean(seconds))
    ratio = statistics.median(map(_over, means["ours"], means["library"]))
    told = ", ".join(f"{side} {1000 * statistics.mean(m):.0f} ms" for side, m in means.items())
    yield Result(
        "a Poisson stream at 70%: mean latency over the library's", ratio, "x", LATENCY, False, told
    )


def crowds(setting: Setting, contest: Contest, small: ServerProcess) -> Iterator[Result]:
    """The latency of what is taken in when twice as much comes as can be done."""
    size, limit = setting.either(300, 6), setting.either(LIMIT, 2)
    ratios, refused, unanswered = list[float](), 0, 0
    contest.ask(small.url, mixed(limit, next(_seeds)), limit)
    for turn in range(setting.rounds(3)):
        start = time.monotonic()
        at_limit = contest.ask(small.url, mixed(size, next(_seeds)), limit)
        rate, chance = size / (time.monotonic() - start), random.Random(turn)
        moments = list(accumulate(chance.expovariate(2 * rate) for _ in range(2 * size)))
        answers = contest.ask_at(small.url, mixed(2 * size, next(_seeds)), moments)
        at_limit += contest.ask(small.url, mixed(size, next(_seeds)), limit)  # machines drift
        ratios.append(tail(answers) / tail(at_limit))
        polite = sum(answer.status == 503 and bool(answer.after) for answer in answers)
        refused += polite
        unanswered += sum(not answer.accepted for answer in answers) - polite
    told = f"the last {tail(answers):.2f} s, at the limit {tail(at_limit):.2f} s; {refused} refused"
    yield Result(
        "twice the requests that can be done: 99 of 100 of the accepted over those at the limit",
        statistics.median(ratios), "x", OVERLOAD, False, told,
    )  # fmt: skip
    yield Result(
        "twice the requests that can be done: those without an answer", unanswered, "", 0, False
    )


def tail(answers: Sequence[Answer]) -> float:
    """The 99th percentile of the seconds of what was taken in."""
    seconds = sorted(answer.seconds for answer in answers if answer.accepted)
    return seconds[int(0.99 * (len(seconds) - 1))]


def _over(one: float, other: float) -> float:
    return one / other
