"""Libraries that a base install does without: each is imported where it is needed."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any


def need(module: str, extra: str) -> Any:
    """Import a module of an extra.

    Args:
        module: Its name.
        extra: What brings it: "baselines", "eval", "ray", "serve" or "train".

    Raises:
        ImportError: It is not installed; the message says how to install it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        missing = (error.name or module).partition(".")[0]
        raise ImportError(
            f"this needs {missing}, which is not installed: pip install 'unitok-engine[{extra}]'"
        ) from None


@contextmanager
def missing_is_wrong_use() -> Iterator[None]:
    """A library that is not installed is a user's mistake, as the command line reports them.

    Raises:
        ValueError: It is not installed; the message says how to install it.
    """
    try:
        yield
    except ImportError as error:
        raise ValueError(str(error)) from None
