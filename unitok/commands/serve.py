"""The command `unitok serve`."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unitok.extras import missing_is_wrong_use, need
from unitok.flags import ON_RAY, Common, CpusPerReplica, GpusPerReplica, Replicas, with_flags
from unitok.server.settings import limit_flags

if TYPE_CHECKING:
    from unitok.server.app_spec import AppSpec

OfReplicas = tuple[int | None, int | None, float | None]  # their count, and CPUs and GPUs of each
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
            help="Folders or hub ids. Without any, the embedded model. --adapter and --adapters "
            "are of the first.",
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
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Serve in replicas on a Ray cluster: HOST:PORT; auto for the one that this "
            "machine is part of; local to start Ray here. They keep no responses and no files.",
            rich_help_panel=ON_RAY,
        ),
    ] = None,
    replicas: Replicas = None,
    cpus_per_replica: CpusPerReplica = None,
    gpus_per_replica: GpusPerReplica = None,
    **limits: Any,
) -> None:
    """Serve models behind OpenAI's API: chat, pictures, responses.

    Point any client of that API at http://127.0.0.1:8000/v1. Ctrl-C lets running requests finish; a
    second one ends at once.

    Example: unitok serve --alias gpt-image-1
    """
    with missing_is_wrong_use():
        need("starlette", "serve")
    from unitok.server.app_spec import AppSpec
    from unitok.server.fetcher import host_name
    from unitok.server.keys import ApiKeys
    from unitok.server.listen import check_exposure, make_settings

    asked = (replicas, cpus_per_replica, gpus_per_replica)
    _check_ray(ray, asked, state)
    settings = make_settings(
        **limits,
        allowed_origins=tuple(allow_origin or ()),
        local_only=api_key_file is None and not no_key,
        allowed_hosts=tuple(map(host_name, allow_picture_host or ())),
        shares_address=ray is not None,
    )
    keys = ApiKeys() if api_key_file is None else ApiKeys.read(api_key_file)
    check_exposure(host, bool(keys), no_key)
    spec = AppSpec(
        models=tuple(_each(common, models)),
        settings=settings,
        keys=keys,
        aliases=tuple(alias or ()),
        quiet=common.quiet,
    )
    if ray is None:
        _serve_here(spec, host, port, state)
    else:
        _serve_on_ray(spec, ray, asked, host, port)


def _serve_here(spec: AppSpec, host: str, port: int, state: Path | None) -> None:
    """Serve in this process."""
    from unitok.server.listen import Listener, open_socket, url_of
    from unitok.server.log_lines import logged_to_stderr
    from unitok.server.state.folder import State

    opened = open_socket(host, port)
    with opened, logged_to_stderr(spec.quiet), ExitStack() as stack:
        identities: dict[str, Callable[[], str]] = {}
        # Models are closed before it, so that no batch goes on.
        kept = (
            None if state is None else stack.enter_context(State(state, spec.settings, identities))
        )
        app = spec.make(stack, kept, identities)
        if not spec.quiet:
            print(f"{', '.join(app.services.models.names)}: {url_of(opened)}", file=sys.stderr)
        asyncio.run(Listener(app, host, port).serve([opened]))


def _serve_on_ray(spec: AppSpec, address: str, asked: OfReplicas, host: str, port: int) -> None:
    """Serve in replicas, on a Ray cluster."""
    from unitok.backends.ray.cluster import LOCAL, Replicas
    from unitok.server.listen import open_socket
    from unitok.server.ray_serve import serve_on_ray

    count, cpus, gpus = asked
    replicas = Replicas(count or 1, cpus or 1, gpus or 0.0)
    if address == LOCAL or not port:  # a cluster may have Ray Serve already, at that very port
        with open_socket(host, port) as opened:  # what is taken is told at once
            port = opened.getsockname()[1]
    with missing_is_wrong_use():
        serve_on_ray(spec, address, replicas, host, port)


def _check_ray(ray: str | None, asked: OfReplicas, state: Path | None) -> None:
    """Refuse flags that do not go together.

    Raises:
        ValueError: They do not.
    """
    if ray is None and any(one is not None for one in asked):
        raise ValueError("--replicas and its like need --ray: add --ray local")
    if ray is not None and state is not None:
        raise ValueError(
            "--state keeps files in one server, and replicas share none: leave it out with --ray, "
            "or put a proxy before servers with a --state each (docs/scaling.md)"
        )


def _each(common: Common, models: list[str] | None) -> list[Common]:
    """The options of each model. Only the first has adapters, which fit no other."""
    if models and common.model is not None:
        raise ValueError("give models as arguments or with --model, not both")
    first, *others = models or [common.model]
    bare = replace(common, adapter=None, adapters=None)
    return [replace(common, model=first), *(replace(bare, model=other) for other in others)]
