"""The examples of the pages about training run as they stand."""

import pytest

from tests.test_guides import OF_TRAINING, environment, run_page

__all__ = ["environment"]  # the fixture


@pytest.mark.timeout(600)  # a page trains several models
@pytest.mark.parametrize("page", OF_TRAINING, ids=lambda page: page.stem)
def test_the_examples_of_a_page_run(page, tmp_path, monkeypatch, environment):
    monkeypatch.chdir(tmp_path)
    run_page(page, environment, "python", "sh")
