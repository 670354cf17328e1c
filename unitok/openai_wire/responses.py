"""/v1/responses: a body goes on with a conversation, in which the model answers or paints.

Beside OpenAI's own keys, a body may have options of `Reply`, such as "seed" and "top_k". They are
for text. Those of `SHARED` are for a picture too, unless the tool has its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unitok.openai_wire import form
from unitok.openai_wire.body import (
    WireError,
    check_known,
    check_neutral,
    given_keys,
    made,
    read_body,
    take_flag,
    take_options,
    take_text,
)
from unitok.openai_wire.chat import OPTIONS as CHAT_OPTIONS
from unitok.openai_wire.responses_input import NAME as INPUT
from unitok.openai_wire.responses_talk import Talk
from unitok.openai_wire.responses_tool import DRAW_OPTIONS, Choice, Tool, choice_of, tool_of
from unitok.requests import Reply, options_of
from unitok.strict_json import JsonObject, shown_json

MOST_TOKENS = "max_output_tokens"  # OpenAI's word for max_tokens
OPTIONS = tuple(name for name in CHAT_OPTIONS if name != "max_tokens")
SHARED = ("seed", "timeout", "priority")
TEXTS = ("model", "user", "safety_identifier", "prompt_cache_key")  # which change nothing
MAX_PAIRS, MAX_KEY, MAX_VALUE = 16, 64, 512  # of metadata
NEUTRAL: dict[str, tuple[object, ...]] = {
    "background": (False,),
    "include": ([],),
    "parallel_tool_calls": (True, False),  # a response uses its tool once
    "reasoning": ({},),
    "service_tier": ("auto", "default"),
    "stream_options": ({}, {"include_obfuscation": False}),
    "top_logprobs": (0,),
    "truncation": ("disabled",),
}
KNOWN = (
    *(INPUT, "instructions", "previous_response_id", "tools", "tool_choice", "stream", "store"),
    *("metadata", "text", MOST_TOKENS, *TEXTS, *OPTIONS, *NEUTRAL),
)


@dataclass(frozen=True)
class ResponseAsked:
    """What a body asks for, but for its input.

    Attributes:
        given: Its keys that are not null.
        instructions: The system prompt; None for the model's own.
        previous: The id of the response that the conversation goes on from; None for none.
        tool: The tool; None for none.
        choice: Whether the tool is used.
        options: Those of `Reply`.
        metadata: What the client notes of the response.
        stream: Whether it comes piece by piece.
        store: Whether it is kept.
    """

    given: JsonObject
    instructions: str | None
    previous: str | None
    tool: Tool | None
    choice: Choice
    options: Mapping[str, Any]
    metadata: Mapping[str, str]
    stream: bool
    store: bool

    @property
    def seed(self) -> int | None:
        """The seed; None for a random one."""
        return self.options.get("seed")

    @property
    def shared(self) -> JsonObject:
        """The options that are for a picture too."""
        return {name: self.options[name] for name in SHARED if name in self.options}

    def reply(self, talk: Talk, seed: int) -> Reply:
        """The request of an answer in words.

        Args:
            talk: The conversation.
            seed: The seed.

        Raises:
            WireError: The options do not go together.
        """
        return made(Reply, talk.messages, **{**self.options, "seed": seed})


def response_of(body: object) -> ResponseAsked:
    """What a body asks for, but for its input.

    Raises:
        WireError: A key is missing, wrong, or not supported.
    """
    given = read_body(body, KNOWN, NEUTRAL)
    for name in TEXTS:
        _text(given, name)
    stream = take_flag(given, "stream")
    tool = tool_of(given, stream)
    choice, options = choice_of(given, tool), _options(given)
    if choice == "required":
        _check_only_of_pictures(given, options)
    return ResponseAsked(
        given,
        _text(given, "instructions"),
        _text(given, "previous_response_id"),
        tool,
        choice,
        options,
        _metadata(given),
        stream,
        take_flag({"store": True, **given}, "store"),
    )


def _text(given: JsonObject, name: str) -> str | None:
    return take_text(given, name) if name in given else None


def _options(given: JsonObject) -> JsonObject:
    options = take_options(given, Reply, OPTIONS)
    if meant := _form(given):
        if "json_schema" in options:
            raise WireError('give "json_schema" or "text.format", not both', "text.format")
        options |= meant
    if MOST_TOKENS in given:
        try:
            options |= take_options({"max_tokens": given[MOST_TOKENS]}, Reply, ("max_tokens",))
        except WireError as error:
            raise WireError(str(error).replace("max_tokens", MOST_TOKENS), MOST_TOKENS) from None
    return options


def _form(given: JsonObject) -> JsonObject:
    """The option that "text" means, whose format has the parts of response_format side by side."""
    if "text" not in given:
        return {}
    text = given_keys(given["text"], '"text"', "text")
    check_known(text, ("format", "verbosity"), "text.")
    check_neutral({f"text.{n}": v for n, v in text.items()}, {"text.verbosity": ("medium",)})
    if "format" not in text:
        return {}
    parts = given_keys(text["format"], '"text.format"', "text.format")
    if parts.get("type") == "json_schema":
        schema = {name: value for name, value in parts.items() if name != "type"}
        parts = {"type": "json_schema", "json_schema": schema}
    try:
        return form.form_of({form.NAME: parts})
    except WireError as error:
        raise WireError(_renamed(str(error)), _renamed(error.param or "")) from None


def _renamed(text: str) -> str:
    """A text in which places have the names of this API."""
    return text.replace(f"{form.NAME}.json_schema", "text.format").replace(form.NAME, "text.format")


def _check_only_of_pictures(given: JsonObject, options: Mapping[str, Any]) -> None:
    """Refuse options of text where the answer is a picture for sure."""
    for name in ("json_schema", "regex", "choice"):
        if name in options:
            given_as = name if name in given else "text.format"
            raise WireError(
                f'a picture has no form: leave "{given_as}" or "tool_choice" out', "tool_choice"
            )
    for name in (MOST_TOKENS, *OPTIONS):
        if name in given and name not in SHARED:
            hint = " give it in the tool" if name in DRAW_OPTIONS else " leave it out"
            raise WireError(
                f'"{name}" is for text, and "tool_choice" asks for a picture:{hint}', name
            )


def _metadata(given: JsonObject) -> dict[str, str]:
    pairs = given_keys(given.get("metadata", {}), '"metadata"', "metadata")
    if len(pairs) > MAX_PAIRS:
        raise WireError(
            f'"metadata" has {len(pairs)} keys; at most {MAX_PAIRS} are kept', "metadata"
        )
    for name, value in pairs.items():
        if not isinstance(value, str):
            raise WireError(f'"metadata" holds texts, not {shown_json(value)}', "metadata")
        if len(name) > MAX_KEY or len(value) > MAX_VALUE:
            raise WireError(
                f'a key of "metadata" has at most {MAX_KEY} characters, and its value {MAX_VALUE}',
                "metadata",
            )
    return pairs


def echoed(asked: ResponseAsked) -> JsonObject:
    """What every body of a response repeats of what was asked for."""
    given = asked.given
    return {
        "background": False,
        "instructions": asked.instructions,
        MOST_TOKENS: given.get(MOST_TOKENS),
        "metadata": dict(asked.metadata),
        "parallel_tool_calls": given.get("parallel_tool_calls", True),
        "previous_response_id": asked.previous,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": asked.store,
        "temperature": _of_text(asked, "temperature"),
        "text": {"format": {"type": "text"}, **given_keys(given.get("text", {}), '"text"')},
        "tool_choice": given.get("tool_choice", "auto"),
        "tools": [] if asked.tool is None else [asked.tool.body],
        "top_p": _of_text(asked, "top_p"),
        "truncation": "disabled",
        "user": given.get("user"),
    }


def _of_text(asked: ResponseAsked, name: str) -> Any:
    """An option of text, as it was given or by default."""
    return asked.options.get(name, options_of(Reply)[name].default)
