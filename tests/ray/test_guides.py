"""The examples of the page about Ray run as they stand."""

import pytest

from tests.test_guides import OF_RAY, environment, run_page

__all__ = ["environment"]  # the fixture


@pytest.mark.timeout(600)  # it starts Ray three times
@pytest.mark.parametrize("page", OF_RAY, ids=lambda page: page.stem)
def test_the_examples_of_a_page_run(page, tmp_path, monkeypatch, environment):
    monkeypatch.chdir(tmp_path)
    run_page(page, environment, "python", "sh")
