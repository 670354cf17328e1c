"""A griffe extension: methods that take a request's options get the parameters of its class.

Griffe reads the source, where such a method takes a list of requests; see unitok/signatures.py.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any

from griffe import Extension, Function, Parameter, ParameterKind, Parameters

KINDS = {
    inspect.Parameter.POSITIONAL_OR_KEYWORD: ParameterKind.positional_or_keyword,
    inspect.Parameter.KEYWORD_ONLY: ParameterKind.keyword_only,
}


# What a method returns for its caller, by its decorator.
RETURNS: dict[str, Callable[..., str]] = {
    "answer": lambda returns: returns,
    "answer_or_start": lambda returns, start: f"{returns} | {start}",
    "one": lambda returns: returns,
    "one_or_many": lambda returns: f"{returns.removeprefix('list[').removesuffix(']')} | {returns}",
    "one_or_many_async": lambda returns: RETURNS["one_or_many"](returns),
}


class RequestParameters(Extension):
    """Shows `caption(image, question=None, ...)` where the source has `caption(asked)`."""

    def on_function(self, *, func: Function, **_: Any) -> None:
        """Give a decorated method the parameters that its callers know."""
        for decorator in func.decorators:
            name, _bracket, classes = str(decorator.value).rstrip(")").partition("(")
            if name in RETURNS:
                made, *others = classes.split(", ")
                by_place = ParameterKind.positional_only if name.startswith("one") else None
                known = import_module(func.module.path)
                func.parameters = parameters_of(getattr(known, made), by_place)
                func.returns = RETURNS[name](str(func.returns), *others)


def parameters_of(made: type, first: ParameterKind | None) -> Parameters:
    """The parameters of a request's class, after self.

    Args:
        made: The class.
        first: The kind of the first one; None for the kind that it has in the class.
    """
    shown = [Parameter("self", kind=ParameterKind.positional_only)]
    for name, parameter in inspect.signature(made).parameters.items():
        kind = first if first and len(shown) == 1 else KINDS[parameter.kind]
        required = parameter.default is parameter.empty
        shown.append(
            Parameter(name, kind=kind, default=None if required else repr(parameter.default))
        )
    return Parameters(*shown)
