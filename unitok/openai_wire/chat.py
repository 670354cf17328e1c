"""/v1/chat/completions: a body holds a conversation, and the answer its next message.

Beside OpenAI's own keys, a body may have options of `Reply`, such as "top_k". What is left out has
the default of `Reply`: above all, the temperature is 0.
"""

import re
from pathlib import Path

from unitok.messages import parse_messages
from unitok.openai_wire import form
from unitok.openai_wire.body import ANY_TEXT, WireError, made, read_body, take_options
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
_PLACE = re.compile(r"messages[\w.\[\]]*")


def reply_of(body: object, folder: Path | None = None) -> Reply:
    """The request that a body means. No picture is opened.

    Args:
        body: The body.
        folder: Where relative paths of pictures start; None for the working folder.

    Raises:
        WireError: A key is missing, wrong, or not supported.
    """
    given = read_body(body, KNOWN, NEUTRAL)
    if "messages" not in given:
        raise WireError('"messages" is missing', "messages")
    check_messages(given["messages"], folder)
    return made(Reply, given["messages"], folder, **_options(given))


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
    """The body that answers with a message.

    Args:
        result: The answer.
        model: The name of the model that gave it.
        id: The id of the answer.
        created: The time, in seconds since 1970.
    """
    prompt, completion = result.prompt_tokens, result.completion_tokens
    message = {"role": "assistant", "content": result.text, "refusal": None}
    return {
        "id": id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": message,
                "logprobs": None,
                "finish_reason": result.finish_reason,
            }
        ],
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        },
        "seed": result.seed,
    }


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
