"""The command `unitok serve`."""

from __future__ import annotations

import asyncio
import inspect
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unitok.extras import missing_is_wrong_use, need
from unitok.flags import Common, with_flags
from unitok.server.settings import limit_flags

if TYPE_CHECKING:
    from unitok.api import Model

LIMITS = "Limits"


def _flags_of_limits() -> list[inspect.Parameter]:
    """A flag of each limit of the server; None stands for its default."""
    flags = []
    for flag in limit_flags():
        info = typer.Option(
            help=flag.limit.help,
            metavar="BYTES" if flag.limit.unit == "bytes" else None,
            show_default=flag.limit.shown(flag.default),
            rich_help_panel=LIMITS,
        )
        annotation, kind = Annotated[flag.kind | None, info], inspect.Parameter.KEYWORD_ONLY
        flags.append(inspect.Parameter(flag.name, kind, annotation=annotation, default=None))
    return flags


@with_flags(also=_flags_of_limits())
def serve(
    common: Common,
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL",
            help="Folders or hub ids. Without any, the embedded model.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port; 0 for any free one.")
    ] = 8000,
    api_key_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="API keys, one a line. Without it, no key is needed."),
    ] = None,
    no_key: Annotated[
        bool,
        typer.Option("--no-key", help="Let others use the server without a key. Take care."),
    ] = False,
    alias: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=MODEL]",
            help="Another name of the first model, or of MODEL, such as gpt-image-1. May be given "
            "several times.",
        ),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN",
            help="A web page's origin that may use the server, such as https://example.org.",
        ),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Keep uploaded files and run batches, in this folder. A batch goes on when the "
            "server is started again.",
            show_default="keep none",
        ),
    ] = None,
    allow_picture_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST",
            help="A host that pictures may be fetched from, such as example.org. Without any, "
            "pictures come in the request only. May be given several times.",
        ),
    ] = None,
    **limits: Any,
) -> None:
    """Serve models behind OpenAI's API: chat, pictures, responses.

    Point any client of that API at http://127.0.0.1:8000/v1. Ctrl-C lets running requests finish; a
    second one ends at once.

    Example: unitok serve --alias gpt-image-1
    """
    with missing_is_wrong_use():
        need("starlette", "serve")
    from unitok.server.app import App
    from unitok.server.fetcher import host_name
    from unitok.server.keys import ApiKeys
    from unitok.server.listen import Listener, check_exposure, make_settings, open_socket, url_of
    from unitok.server.state.folder import State

    settings = make_settings(
        **limits,
        allowed_origins=tuple(allow_origin or ()),
        local_only=api_key_file is None and not no_key,
        allowed_hosts=tuple(map(host_name, allow_picture_host or ())),
    )
    keys = ApiKeys() if api_key_file is None else ApiKeys.read(api_key_file)
    check_exposure(host, bool(keys), no_key)
    opened = open_socket(host, port)
    with opened, _logged_to_stderr(common), ExitStack() as stack:
        identities: dict[str, Callable[[], str]] = {}
        # Models are closed before it, so that no batch goes on.
        kept = None if state is None else stack.enter_context(State(state, settings, identities))
        each = _each(common, models)
        loaded = [stack.enter_context(one.load()) for one in each]
        identities |= {model.name: one.identity for model, one in zip(loaded, each, strict=True)}
        app = App(loaded, settings, keys, _aliases(alias, loaded), kept)
        if not common.quiet:
            print(f"{', '.join(app.services.models.names)}: {url_of(opened)}", file=sys.stderr)
        asyncio.run(Listener(app, host, port).serve([opened]))


def _each(common: Common, models: list[str] | None) -> list[Common]:
    """The options of each model."""
    if models and common.model is not None:
        raise ValueError("give models as arguments or with --model, not both")
    return [replace(common, model=model) for model in models] if models else [common]


def _aliases(given: list[str] | None, loaded: list[Model]) -> dict[str, str]:
    """What each alias stands for."""
    aliases: dict[str, str] = {}
    for text in given or ():
        name, _, meant = text.partition("=")
        if not name or name in aliases:
            why = "is there twice" if name else "has no name"
            raise ValueError(f"--alias {text!r} {why}: give NAME or NAME=MODEL, each name once")
        aliases[name] = meant or loaded[0].name
    return aliases


@contextmanager
def _logged_to_stderr(common: Common) -> Iterator[None]:
    """A JSON line for each request. Warnings about prompts are nobody's but the client's."""
    logger, handler = logging.getLogger("unitok.server"), logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    before = logger.level, logger.propagate
    logger.setLevel(logging.ERROR if common.quiet else logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before
