"""The libraries without their own bars and notes."""

import logging
from importlib import import_module
from importlib.util import find_spec


def without_bars() -> None:
    """Turn off the bars and the notes that the libraries print, where they are installed."""
    logging.getLogger("xformers").setLevel(logging.ERROR)  # which diffusers imports
    for library in ("transformers", "diffusers"):
        if find_spec(library) is not None:
            logs = import_module(f"{library}.utils.logging")
            logs.disable_progress_bar()
            logs.set_verbosity(logging.CRITICAL)  # diffusers logs the errors that it raises
