"""A cache folder of a script's own, so that it measures what a new user has, and leaves nothing."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

from unitok.drafts import CACHE


@contextmanager
def own_cache() -> Iterator[None]:
    """Let models that are loaded from here on keep what they learn in a folder that is removed."""
    before = os.environ.get(CACHE)
    with TemporaryDirectory() as folder:
        os.environ[CACHE] = folder
        try:
            yield
        finally:
            del os.environ[CACHE]
            if before is not None:
                os.environ[CACHE] = before
