"""What the library refuses, in the words of OpenAI's API."""

from unitok.families.common.family import ImageSizeError
from unitok.openai_wire.body import WireError, param_of
from unitok.picture_sources import Reason, Refused
from unitok.prompt_length import ContextFullError
from unitok.requests import AnyRequest, Edit

# OpenAI's words for what is wrong with a picture.
OF_PICTURES: dict[Reason, str] = {
    "empty": "empty_image_file",
    "bytes": "image_file_too_large",
    "base64": "invalid_base64_image",
    "format": "invalid_image_format",
    "no pixels": "image_too_small",
    "pixels": "image_too_large",
    "damaged": "image_parse_error",
}


def refusal_of(error: Exception, kind: type[AnyRequest]) -> WireError:
    """The error of a request that the model's library refuses.

    Args:
        error: The library's.
        kind: The class of the request.
    """
    if isinstance(error, WireError):
        return error
    if isinstance(error, Refused):
        return picture_refusal(error, "image" if issubclass(kind, Edit) else None)
    if isinstance(error, ImageSizeError):
        return WireError(str(error), "size")
    if isinstance(error, ContextFullError):
        return WireError(str(error), None, "context_length_exceeded")
    return WireError(str(error), param_of(error, kind))


def picture_refusal(error: Refused, param: str | None) -> WireError:
    """The error of a picture that cannot be read.

    Args:
        error: Why it cannot.
        param: The picture's key, if the error has no place.
    """
    return WireError(str(error), error.where or param, OF_PICTURES[error.reason])
