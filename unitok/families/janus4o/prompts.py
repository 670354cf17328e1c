"""The prompts of an edit (FreedomIntelligence/ShareGPT-4o-Image, README.md)."""

from collections.abc import Sequence

from unitok.families.janus import Template
from unitok.prompt import EncodedImage
from unitok_engine import Branch


def edit_prompt(
    template: Template, picture: EncodedImage, details: Sequence[int], prompt: str
) -> Branch:
    """What the model sees before it generates the changed picture.

    The user's turn holds the picture twice, as it is read and as it would be generated, and then
    at once the prompt, with no line break before it.

    Args:
        template: The conversation format of Janus.
        picture: As it is read: embeddings between their marks.
        details: The image token ids of the picture, or as many pads.
        prompt: What to change.
    """
    begin, end = map(template.tokenizer.id, (template.begin_of_image, template.end_of_image))
    builder = template.open_turn(template.start(), "user").text(" ")
    builder.picture(picture).picture(EncodedImage(((begin, *details, end),)))
    builder.text(prompt.rstrip() + "\n\n")
    return template.open_turn(builder, "assistant").id(begin).branch()
