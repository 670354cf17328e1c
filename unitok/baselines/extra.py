"""Libraries that only baselines need; a base install does without them."""

import logging
from importlib import import_module
from importlib.util import find_spec
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


def without_bars() -> None:
    """Turn off the bars and the notes that the libraries print, where they are installed."""
    logging.getLogger("xformers").setLevel(logging.ERROR)  # which diffusers imports
    for library in ("transformers", "diffusers"):
        if find_spec(library) is not None:
            logs = import_module(f"{library}.utils.logging")
            logs.disable_progress_bar()
            logs.set_verbosity_error()
