"""What an app is made of, before any model is loaded: it can be sent to where the app shall run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unitok.server.keys import ApiKeys
from unitok.server.settings import ServerSettings

if TYPE_CHECKING:
    from unitok.api import Model
    from unitok.flags import Common
    from unitok.server.app import App
    from unitok.server.state.folder import State


@dataclass(frozen=True, kw_only=True)
class AppSpec:
    """What an app is made of.

    Attributes:
        models: The options of each model. There is at least one.
        settings: The limits and the times.
        keys: Who may use the server.
        aliases: Further names, as `alias_names` reads them.
        quiet: Whether only errors are logged.
    """

    models: tuple[Common, ...]
    settings: ServerSettings
    keys: ApiKeys
    aliases: tuple[str, ...] = ()
    quiet: bool = False

    def make(
        self,
        stack: ExitStack,
        state: State | None = None,
        identities: dict[str, Callable[[], str]] | None = None,
    ) -> App:
        """Load the models, and make the app.

        Args:
            stack: Closes the models.
            state: What is kept on disk; by default nothing.
            identities: Gets what gives each model's identity, by the model's name, for the state.

        Raises:
            OSError: A model cannot be read.
            ValueError: An option is wrong, or two models, adapters or aliases have one name.
        """
        from unitok.server.app import App

        loaded = [stack.enter_context(one.load()) for one in self.models]
        if identities is not None:
            identities |= {m.name: one.identity for m, one in zip(loaded, self.models, strict=True)}
        return App(loaded, self.settings, self.keys, alias_names(self.aliases, loaded), state)


def alias_names(given: Sequence[str], loaded: Sequence[Model]) -> dict[str, str]:
    """What each alias stands for.

    Args:
        given: Each is NAME, for the first model, or NAME=MODEL.
        loaded: The models.

    Raises:
        ValueError: An alias has no name, or is there twice.
    """
    aliases: dict[str, str] = {}
    for text in given:
        name, _, meant = text.partition("=")
        if not name or name in aliases:
            why = "is there twice" if name else "has no name"
            raise ValueError(f"--alias {text!r} {why}: give NAME or NAME=MODEL, each name once")
        aliases[name] = meant or loaded[0].name
    return aliases
