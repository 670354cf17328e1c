"""What a model gets right: suites, runs that go on after a kill, reports, comparisons.

`suite.py` says what a suite is, and `registry.py` names them all. `run.py` asks a suite's items and
has each result judged as it comes, `journal.py` keeps the judgements, and `finishing.py` writes the
scores and the report. A data set's own suite is beside the data set: `unitok.emoji.evaluation` is
one.
"""
