"""A prompt with pictures that are read, as vLLM takes it: one placeholder for each."""

from collections.abc import Sequence

from unitok.families.janus import Template


def reading_prompt(token_ids: Sequence[int], template: Template) -> list[int]:
    """A prompt in which each picture is one placeholder, which vLLM expands again.

    Args:
        token_ids: As `Template.answer` gives them: a picture is begin-of-image, a placeholder for
            each embedding, and end-of-image.
        template: The prompts of the model.
    """
    tokens = (template.begin_of_image, template.placeholder, template.end_of_image)
    begin, place, end = map(template.tokenizer.id, tokens)
    picture, ids = [begin, *[place] * template.picture_length, end], list(token_ids)
    found: list[int] = []
    while ids:
        is_picture = ids[: len(picture)] == picture
        found.append(place if is_picture else ids[0])
        del ids[: len(picture) if is_picture else 1]
    return found
