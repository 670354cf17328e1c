"""The token ids of vLLM's requests, and what the second stream sees in their place.

Text ids are [0, T) and image ids [T, T + I), as in our vocabulary. One more id, `paint`, stands for
the begin-of-image that a drawing follows. The second stream is the unconditional prompt: it sees
text as pads, and begin-of-sentence, begin-of-image and image ids as themselves. Behind `paint`, I
columns of the logits hold what the second stream says of the image ids; they are never sampled.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from unitok.families.janus import JanusFolder
from unitok_engine import IdRange

KEY = "unitok"  # of the config that vLLM carries to all its processes
STREAMS = "unitok_streams"  # what --hf-overrides may set to 1


@dataclass(frozen=True)
class TokenLayout:
    """Where token ids lie.

    Attributes:
        text_size: The number T of text ids.
        image_size: The number I of image ids.
        bos: The id of begin-of-sentence.
        pad: The id of the pad.
        begin_of_image: The id after which a picture is drawn or read.
        streams: 2, or 1 where text alone is served.
    """

    text_size: int
    image_size: int
    bos: int
    pad: int
    begin_of_image: int
    streams: int = 2

    @classmethod
    def of_folder(cls, folder: JanusFolder, streams: int = 2) -> "TokenLayout":
        """The layout of a folder's model."""
        sizes, template = folder.sizes, folder.template
        names = (template.bos, template.pad, template.begin_of_image)
        ids = (template.tokenizer.id(name) for name in names)
        text_size, image_size = sizes.decoder.vocab_size, sizes.image_tokenizer.codebook_size
        return cls(text_size, image_size, *ids, streams=streams)

    @classmethod
    def of_config(cls, hf_config: Any) -> "TokenLayout":
        """The layout that `to_config` left in a config of vLLM's."""
        return cls(**getattr(hf_config, KEY))

    def to_config(self, hf_config: Any) -> None:
        """Leave the layout in a config, as JSON can hold it."""
        setattr(hf_config, KEY, asdict(self))

    @property
    def draws(self) -> bool:
        """Whether there is a second stream, and so drawings."""
        return self.streams == 2

    @property
    def images(self) -> IdRange:
        """The image ids."""
        return IdRange(self.text_size, self.text_size + self.image_size)

    @property
    def paint(self) -> int:
        """The id that stands for the begin-of-image which a drawing follows."""
        return self.text_size + self.image_size

    @property
    def second(self) -> IdRange:
        """The columns of the logits with the second stream's image ids."""
        return IdRange(self.paint + 1, self.paint + 1 + self.image_size)

    @property
    def size(self) -> int:
        """The columns of the logits: what vLLM takes for the size of the vocabulary."""
        return self.second.stop if self.draws else self.text_size

    def drawing_prompt(self, token_ids: Sequence[int]) -> list[int]:
        """The prompt of a drawing for vLLM.

        Args:
            token_ids: The prompt, which ends in begin-of-image.

        Raises:
            ValueError: It ends in something else, or only text is served.
        """
        if not self.draws:
            raise ValueError(NO_DRAWINGS)
        if not token_ids or token_ids[-1] != self.begin_of_image:
            raise ValueError("the prompt of a drawing must end in begin-of-image")
        return [*token_ids[:-1], self.paint]

    def second_prompt(self, token_ids: Sequence[int]) -> list[int]:
        """What the second stream sees of a drawing's prompt, in our own ids."""
        return [self.second_id(id) for id in token_ids]

    def second_id(self, id: int) -> int:
        """What the second stream sees of one id of a drawing, in our own ids."""
        if id == self.paint:
            return self.begin_of_image
        return id if id == self.bos or id >= self.text_size else self.pad


NO_DRAWINGS = (
    f"this replica serves text alone, as it was started with {STREAMS}=1, and cannot draw: start "
    "one without it"
)
