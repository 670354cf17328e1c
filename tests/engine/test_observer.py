from dataclasses import dataclass, field, replace

import pytest

from tests.engine.test_faults import everything_is_back
from tests.engine.tiny import TinyModel, caption, drawing, finals, finished_ids
from unitok_engine import Engine, EngineConfig, StepRecord


@dataclass
class Log:
    records: list[StepRecord] = field(default_factory=list)
    broken: bool = False

    def stepped(self, record: StepRecord) -> None:
        self.records.append(record)
        if self.broken:
            raise KeyError("the log is full")


def watched(log: Log, **options) -> Engine:
    config = EngineConfig(num_blocks=200, block_size=4, max_context=256, **options)
    return Engine(TinyModel(), config, log)


def test_an_observer_is_told_what_each_forward_ran():
    log = Log()
    machine = watched(log, max_batch_tokens=8)
    machine.add(replace(drawing(1, length=3), n=2))  # prompts of 8 and 2 ids
    emitted = 0
    while machine.has_work:
        emitted += sum(len(output.token_ids) for output in machine.step())
    assert len(log.records) == machine.stats.forwards
    assert sum(record.emitted for record in log.records) == emitted == 6
    first, second, third, *_, last = log.records
    assert (first.tokens, first.prefill_tokens, first.emitted) == (8, 8, 0)
    assert (second.query_lengths, second.context_lengths) == ((1, 1), (8, 2))
    assert (second.rows, second.sequences, second.prefill_tokens, second.emitted) == (2, 1, 2, 1)
    # The other sample copies the pads' only block, and computes its last id again.
    assert (third.copied_blocks, third.sequences, third.emitted) == (2, 2, 2)
    assert sum(record.copied_blocks for record in log.records) == 2
    assert (last.prefill_tokens, last.query_lengths, last.context_lengths) == (0, (1, 1), (10, 4))


def test_what_an_observer_raises_is_no_requests_fault():
    log = Log(broken=True)
    machine = watched(log)
    requests = [caption(1), drawing(2)]
    for request in requests:
        machine.add(request)
    outputs = []
    for _ in range(4):
        with pytest.raises(KeyError, match="full"):
            machine.step()
        outputs += machine.step()  # of the step whose observer raised
    log.broken = False
    while machine.has_work:
        outputs += machine.step()
    everything_is_back(machine)
    assert [o.token_ids for _, o in sorted(finals(outputs).items())] == finished_ids(
        watched(Log()), requests
    )
