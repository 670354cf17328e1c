"""Libraries that only baselines need; a base install does without them."""

from importlib import import_module
from typing import Any


def need(module: str) -> Any:
    """Import a module of the extra `baselines`.

    Raises:
        ImportError: It is not installed; the message says how to install it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        missing = (error.name or module).partition(".")[0]
        raise ImportError(
            f"this model needs {missing}, which is not installed: "
            "pip install 'unitok-engine[baselines]'"
        ) from None
