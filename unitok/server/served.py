"""The models of a server, by the names that requests give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from unitok.api import Model
from unitok.families.common.editing import Editor
from unitok.server.errors import ApiError
from unitok.strict_json import JsonObject, shown_json


@dataclass(frozen=True)
class Served:
    """A model under one of its names.

    Attributes:
        name: The name, which answers give as their model.
        model: The model.
        adapter: The adapter that the name stands for; None for none.
    """

    name: str
    model: Model
    adapter: str | None = None


class ServedModels:
    """The models of a server, by name. The first one is taken where a request names none.

    Attributes:
        names: What each name stands for. An adapter has its own name.
        created: When the server began, in seconds since 1970.
    """

    def __init__(
        self, models: Sequence[Model], created: int, aliases: Mapping[str, str] | None = None
    ) -> None:
        """Name the models, their adapters, and aliases.

        Args:
            models: The models. There is at least one.
            created: When the server began, in seconds since 1970.
            aliases: Further names, and the names that they stand for.

        Raises:
            ValueError: A name is there twice, or an alias stands for no known name.
        """
        self.created = created
        self.names: dict[str, Served] = {}
        for model in models:
            self._add(Served(model.name, model))
            for adapter in model.adapters:
                self._add(Served(adapter, model, adapter))
        self.first = next(iter(self.names.values()))
        for alias, name in (aliases or {}).items():
            if name not in self.names:
                raise ValueError(f"the alias {alias!r} stands for {name!r}, which is no model here")
            meant = self.names[name]
            self._add(Served(alias, meant.model, meant.adapter))

    def _add(self, served: Served) -> None:
        if served.name in self.names:
            raise ValueError(f"two models, adapters or aliases are called {served.name!r}")
        self.names[served.name] = served

    @property
    def models(self) -> list[Model]:
        """All models."""
        return list({id(served.model): served.model for served in self.names.values()}.values())

    def find(self, body: object) -> Served:
        """The model that a body names, or the first one.

        Raises:
            ApiError: There is no such model.
        """
        name = body.get("model") if isinstance(body, dict) else None
        if name is None:
            return self.first
        if not isinstance(name, str):
            raise ApiError(400, f'"model" must be text, not {shown_json(name)}', param="model")
        if name not in self.names:
            near = get_close_matches(name[:60], self.names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the first is {self.first.name!r}"
            raise ApiError(
                404,
                f"there is no model {shown_json(name)}; {hint} GET /v1/models lists all",
                param="model",
                code="model_not_found",
            )
        return self.names[name]

    def body(self, name: str) -> JsonObject:
        """What /v1/models says of a name.

        Raises:
            ApiError: There is no such model.
        """
        served = self.find({"model": name})
        info = served.model.info()
        width, height = info.picture_size
        details: dict[str, Any] = {
            "root": served.model.name,
            "adapter": served.adapter,
            "context": info.context,
            "picture_size": f"{width}x{height}",
            "picture_tokens": info.picture_tokens,
            "guidance": info.guidance,
            "follows_instructions": isinstance(served.model.family, Editor),
        }
        return {
            "id": name,
            "object": "model",
            "created": self.created,
            "owned_by": "unitok",
            "unitok": details,
        }
