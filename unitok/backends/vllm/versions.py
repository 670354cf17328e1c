"""Which versions of vLLM the plugin is known to work with.

They are tested one by one: vLLM changes the insides that the plugin builds on without notice.
constraints-vllm.txt has the environment of each test.
"""

from collections.abc import Sequence

KNOWN: Sequence[str] = ("0.32.0",)
"""Versions of vLLM with which tests/vllm passes."""


def warning(version: str) -> str | None:
    """What to say of a version of vLLM that was not tested; None for one that was.

    Args:
        version: As vLLM calls itself. What follows a "+" names the build, such as that for CPUs.
    """
    if version.partition("+")[0] in KNOWN:
        return None
    return f"unitok's plugin is known to work with {named()}; this is {version}, which is untested"


def refusal(version: str, error: Exception) -> str:
    """What to say where an import from inside vLLM fails, most likely because it moved.

    Args:
        version: As vLLM calls itself.
        error: What was raised.
    """
    known = f"it is known to work with {named()}"
    return f"unitok's plugin does not work with vLLM {version}: {error}; {known}"


def named() -> str:
    """The known versions for a sentence."""
    return "vLLM " + " and ".join(KNOWN)
