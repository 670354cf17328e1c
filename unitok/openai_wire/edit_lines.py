"""/v1/images/edits as a line of a batch: JSON, in which pictures are data URLs.

It has the keys of the form, but "images", of one picture, and "mask" are objects, each with an
"image_url". The answer holds PNG.
"""

from __future__ import annotations

from unitok.openai_wire.body import WireError, check_known, check_neutral, given_keys, take_text
from unitok.openai_wire.edits import edit_of
from unitok.picture_sources import is_data_uri, read_data_uri
from unitok.requests import Edit
from unitok.strict_json import JsonObject, shown_json

IMAGES, MASK, URL = "images", "mask", "image_url"
# A line is answered once, and as PNG.
NEUTRAL: dict[str, tuple[object, ...]] = {
    "stream": (False,),
    "partial_images": (0,),
    "output_format": ("png",),
}


def edit_of_line(body: object, most: int) -> Edit:
    """The request that a body means. Its mask is as it was given.

    Args:
        body: The body.
        most: The most pictures that it may ask for.

    Raises:
        WireError: A key is missing, wrong, or not supported.
        ValueError: A data URL is damaged.
    """
    given = given_keys(body, '"body"')
    check_neutral(given, NEUTRAL)
    image = _one_image(given)
    mask = _picture(given[MASK], MASK) if MASK in given else None
    rest = {name: value for name, value in given.items() if name not in (IMAGES, MASK)}
    request = edit_of(rest, image, mask, most).request
    assert isinstance(request, Edit)
    return request


def _one_image(given: JsonObject) -> bytes:
    images = given.get(IMAGES)
    if not isinstance(images, list) or len(images) != 1:
        told = shown_json(images) if IMAGES in given else "nothing"
        raise WireError(
            f'"{IMAGES}" must be a list of one picture, such as [{{"{URL}": "data:image/png;'
            f'base64,..."}}], not {told}',
            IMAGES,
        )
    return _picture(images[0], f"{IMAGES}[0]")


def _picture(value: object, place: str) -> bytes:
    given = given_keys(value, f'"{place}"', place)
    check_known(given, (URL,), f"{place}.")
    source = take_text(given, URL, f"{place}.")
    if not is_data_uri(source):
        raise WireError(
            f'"{place}.{URL}": a picture must be a data URL (data:image/png;base64,...)',
            f"{place}.{URL}",
            "invalid_image_url",
        )
    return read_data_uri(source).getvalue()
