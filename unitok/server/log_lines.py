"""The log of a server: a JSON line for each request, on stderr."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def logged_to_stderr(quiet: bool) -> Iterator[None]:
    """Log to stderr while the block runs. Warnings about prompts are nobody's but the client's.

    Args:
        quiet: Whether only errors are logged.
    """
    logger, handler = logging.getLogger("unitok.server"), logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    before = logger.level, logger.propagate
    logger.setLevel(logging.ERROR if quiet else logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before
