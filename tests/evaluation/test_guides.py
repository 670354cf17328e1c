"""The examples of the pages about evaluation and about models of others run as they stand."""

import pytest

from tests.test_guides import OF_EVALUATION, environment, run_page

__all__ = ["environment"]  # the fixture


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", OF_EVALUATION, ids=lambda page: page.stem)
def test_the_examples_of_a_page_run(page, tmp_path, monkeypatch, environment):
    monkeypatch.chdir(tmp_path)
    run_page(page, environment, "python", "sh")
