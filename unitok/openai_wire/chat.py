"""/v1/chat/completions: a body holds a conversation, and the answer its next message.

Beside OpenAI's own keys, a body may have options of `Reply`, such as "top_k". What is left out has
the default of `Reply`: above all, the temperature is 0.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from unitok.messages import parse_messages
from unitok.openai_wire import form
from unitok.openai_wire.body import (
    ANY_TEXT,
    WireError,
    check_known,
    check_neutral,
    given_keys,
    made,
    read_body,
    take_count,
    take_flag,
    take_options,
)
from unitok.requests import Reply, options_of
from unitok.results import TextResult
from unitok.strict_json import JsonObject

# OpenAI's form of log-probabilities has the text of each token, which a result does not have.
# Adapters have no form here yet.
_NOT_OPTIONS = ("logprobs", "branch_logprobs", "adapter")
OPTIONS = tuple(name for name in options_of(Reply) if name not in _NOT_OPTIONS)
# "model" and "user" may be any text. The answer names the model that gave it.
NEWER = "max_completion_tokens"  # OpenAI's newer word for max_tokens
NEUTRAL: dict[str, tuple[object, ...]] = {
    "n": (1,),
    "stream": (False,),
    "store": (False,),
    "logprobs": (False,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "tools": ([],),
}
KNOWN = ("messages", NEWER, form.NAME, *ANY_TEXT, *OPTIONS, *NEUTRAL)
# What a server does beside, see `chat_of`.
SERVED = ("n", "stream", "stream_options", "logprobs", "top_logprobs")
SERVED_NEUTRAL = {name: values for name, values in NEUTRAL.items() if name not in SERVED} | {
    "top_logprobs": (0,)
}
_PLACE = re.compile(r"messages[\w.\[\]]*")


@dataclass(frozen=True)
class ChatAsked:
    """What a body asks a server for.

    Attributes:
        reply: The request of the first answer.
        n: How many answers.
        stream: Whether they come piece by piece.
        usage: Whether the stream ends with the counts of tokens.
    """

    reply: Reply
    n: int = 1
    stream: bool = False
    usage: bool = False

    def replies(self, seed: int) -> list[Reply]:
        """The requests of all answers.

        Args:
            seed: That of the first one. Each other has the next number, so that it can be had
                again alone.
        """
        return [replace(self.reply, seed=seed + i) for i in range(self.n)]


def reply_of(body: object, folder: Path | None = None) -> Reply:
    """The request that a body means. No picture is opened.

    Args:
        body: The body.
        folder: Where relative paths of pictures start; None for the working folder.

    Raises:
        WireError: A key is missing, wrong, or not supported.
    """
    return _reply(read_body(body, KNOWN, NEUTRAL), folder)


def chat_of(body: object, most: int) -> ChatAsked:
    """What a body asks a server for: also several answers, a stream, and log-probabilities.

    Args:
        body: The body, in which every picture is a data URL or opened.
        most: The most answers that it may ask for.

    Raises:
        WireError: A key is missing, wrong, or not supported.
    """
    given = read_body(body, (*KNOWN, *SERVED), SERVED_NEUTRAL)
    stream = take_flag(given, "stream")
    return ChatAsked(
        replace(_reply(given, None), logprobs=take_flag(given, "logprobs")),
        take_count(given, "n", 1, most, 1),
        stream,
        _usage_wanted(given, stream),
    )


def _reply(given: JsonObject, folder: Path | None) -> Reply:
    if "messages" not in given:
        raise WireError('"messages" is missing', "messages")
    check_messages(given["messages"], folder)
    return made(Reply, given["messages"], folder, **_options(given))


def _usage_wanted(given: JsonObject, stream: bool) -> bool:
    name = "stream_options"
    if name not in given:
        return False
    if not stream:
        raise WireError(f'"{name}" is only for "stream": true', name)
    options = given_keys(given[name], f'"{name}"', name)
    check_known(options, ("include_usage", "include_obfuscation"), f"{name}.")
    check_neutral(options, {"include_obfuscation": (False,)})
    return take_flag(options, "include_usage", f"{name}.")


def check_messages(messages: object, folder: Path | None) -> None:
    """Check a conversation, as `unitok.messages` does.

    Raises:
        WireError: It is wrong. The key is the place in the messages.
    """
    try:
        parse_messages(messages, folder)
    except (ValueError, TypeError) as error:
        place = _PLACE.match(str(error))
        raise WireError(str(error), place[0] if place else "messages") from None


def completion_body(result: TextResult, model: str, id: str, created: int) -> JsonObject:
    """The body that answers a line of a batch with a message.

    What was found computed depends on the lines before, so it is left out: a line is answered the
    same in every run.

    Args:
        result: The answer.
        model: The name of the model that gave it.
        id: The id of the answer.
        created: The time, in seconds since 1970.
    """
    body = completions_body([result], model, id, created, [None])
    del body["usage"]["prompt_tokens_details"]
    return body


def completions_body(
    results: Sequence[TextResult],
    model: str,
    id: str,
    created: int,
    logprobs: Sequence[JsonObject | None],
) -> JsonObject:
    """The body that answers with a message, or with several of which one may be chosen.

    Args:
        results: The answers.
        model: The name of the model that gave them.
        id: The id of the answer.
        created: The time, in seconds since 1970.
        logprobs: The log-probabilities of each, see `logprobs_body`; None for none.
    """
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": result.text, "refusal": None},
            "logprobs": told,
            "finish_reason": result.finish_reason,
        }
        for index, (result, told) in enumerate(zip(results, logprobs, strict=True))
    ]
    return {
        "id": id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": choices,
        "usage": usage_body(results),
        "seed": results[0].seed,
    }


def usage_body(results: Sequence[TextResult]) -> JsonObject:
    """The counts of tokens. The prompt of several answers counts once."""
    prompt = results[0].prompt_tokens
    completion = sum(result.completion_tokens for result in results)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": results[0].cached_tokens},
    }


def chunk_body(
    model: str,
    id: str,
    created: int,
    index: int,
    delta: Mapping[str, str],
    finish_reason: str | None = None,
    logprobs: JsonObject | None = None,
) -> JsonObject:
    """A piece of a streamed answer.

    Args:
        model: The name of the model.
        id: The id of the answer.
        created: The time, in seconds since 1970.
        index: Which of several answers it belongs to.
        delta: What the message goes on with.
        finish_reason: Why the answer has ended; None if it goes on.
        logprobs: The log-probabilities of the whole answer, at its end.
    """
    choice = {
        "index": index,
        "delta": dict(delta),
        "logprobs": logprobs,
        "finish_reason": finish_reason,
    }
    return _chunk(model, id, created, [choice])


def usage_chunk(model: str, id: str, created: int, results: Sequence[TextResult]) -> JsonObject:
    """The last piece of a stream, which has the counts of tokens."""
    return {**_chunk(model, id, created, []), "usage": usage_body(results)}


def _chunk(model: str, id: str, created: int, choices: list[JsonObject]) -> JsonObject:
    return {
        "id": id,
        "object": "chat.completion.chunk",
        "created": created,
        "model": model,
        "choices": choices,
    }


def logprobs_body(texts: Sequence[str], logprobs: Sequence[float]) -> JsonObject:
    """The log-probabilities of an answer's tokens.

    Args:
        texts: What each token adds to the text. The end of an answer adds nothing.
        logprobs: The log-probability of each.
    """
    content = [
        {"token": text, "logprob": value, "bytes": list(text.encode()), "top_logprobs": []}
        for text, value in zip(texts, logprobs, strict=True)
    ]
    return {"content": content, "refusal": None}


def _options(given: JsonObject) -> JsonObject:
    """The options of a body, in which max_tokens and json_schema may have OpenAI's names."""
    options = take_options(given, Reply, OPTIONS)
    if (meant := form.form_of(given)) and "json_schema" in options:
        raise WireError(f'give "json_schema" or "{form.NAME}", not both', form.NAME)
    options |= meant
    if NEWER in given:
        try:
            newer = take_options({"max_tokens": given[NEWER]}, Reply, ("max_tokens",))
        except WireError as error:
            raise WireError(str(error).replace("max_tokens", NEWER), NEWER) from None
        if options.setdefault("max_tokens", newer["max_tokens"]) != newer["max_tokens"]:
            raise WireError(f'give "max_tokens" or "{NEWER}", not both', NEWER)
    return options
