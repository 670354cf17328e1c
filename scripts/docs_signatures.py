"""A griffe extension: methods that take a request's options get the parameters of its class.

Griffe reads the source, where such a method takes a list of requests; see unitok/signatures.py.
"""

from __future__ import annotations

import inspect
from typing import Any

from griffe import Extension, Function, Parameter, ParameterKind, Parameters

from unitok import requests

KINDS = {
    inspect.Parameter.POSITIONAL_OR_KEYWORD: ParameterKind.positional_or_keyword,
    inspect.Parameter.KEYWORD_ONLY: ParameterKind.keyword_only,
}


class RequestParameters(Extension):
    """Shows `caption(image, question=None, ...)` where the source has `caption(asked)`."""

    def on_function(self, *, func: Function, **_: Any) -> None:
        """Give a decorated method the parameters that its callers know."""
        for decorator in func.decorators:
            name, _bracket, made = str(decorator.value).rstrip(")").partition("(")
            if name in ("one", "one_or_many", "one_or_many_async"):
                func.parameters = parameters_of(getattr(requests, made))
                if name != "one":
                    func.returns = one_or_list(str(func.returns))


def parameters_of(made: type) -> Parameters:
    """The parameters of a request's class, after self. The first is given by place."""
    shown = [Parameter("self", kind=ParameterKind.positional_only)]
    for name, parameter in inspect.signature(made).parameters.items():
        kind = ParameterKind.positional_only if len(shown) == 1 else KINDS[parameter.kind]
        required = parameter.default is parameter.empty
        shown.append(
            Parameter(name, kind=kind, default=None if required else repr(parameter.default))
        )
    return Parameters(*shown)


def one_or_list(returns: str) -> str:
    """The type of one result for one thing, and of a list for a list."""
    return f"{returns.removeprefix('list[').removesuffix(']')} | {returns}"
