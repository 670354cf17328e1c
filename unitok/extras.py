"""Libraries that a base install does without: each is imported where it is needed."""

from importlib import import_module
from typing import Any


def need(module: str, extra: str) -> Any:
    """Import a module of an extra.

    Args:
        module: Its name.
        extra: What brings it: "baselines", "eval" or "train".

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
