"""The prompts of Janus and Janus-Pro, and who speaks in them."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from unitok.checkpoints.folders import read_json
from unitok.families.common.siglip import vision_embeddings
from unitok.prompt import EncodedImage, Message, PromptBuilder, Role
from unitok_engine import Branch
from unitok_tokenizers.bounded_files import read_text
from unitok_tokenizers.text import TextTokenizer

PRO_ROLES, PLAIN_ROLES = ("<|User|>", "<|Assistant|>"), ("User", "Assistant")


@dataclass(frozen=True)
class Template:
    """The conversation format of Janus and Janus-Pro.

    Source: deepseek-ai/Janus, janus/utils/conversation.py. A turn is "ROLE: text". User turns end
    in a blank line, assistant turns in end of sentence. As there, space around what is said is
    dropped. A role is a special token if the tokenizer has it as one, else text.

    Attributes:
        tokenizer: The text tokenizer of the checkpoint.
        picture_length: How many embeddings a picture has.
        user: What the user is called, as `assistant` for the model; the others are special tokens.
    """

    tokenizer: TextTokenizer
    picture_length: int
    bos: str = "<｜begin▁of▁sentence｜>"
    eos: str = "<｜end▁of▁sentence｜>"
    pad: str = "<｜▁pad▁｜>"
    begin_of_image: str = "<begin_of_image>"
    end_of_image: str = "<end_of_image>"
    placeholder: str = "<image_placeholder>"
    user: str = PRO_ROLES[0]
    assistant: str = PRO_ROLES[1]

    def start(self, system: str = "") -> PromptBuilder:
        """Begin a prompt."""
        builder = PromptBuilder(self.tokenizer).special(self.bos)
        return builder.text(system.lstrip() + "\n\n") if system.strip() else builder

    def turn(self, builder: PromptBuilder, message: Message) -> PromptBuilder:
        """Add a whole turn. What a user shows stands on a line of its own."""
        self.open_turn(builder, message.role)
        pieces = stripped(message.pieces)
        if message.role == "user":
            builder.text(" ")
            for i, piece in enumerate(pieces):
                builder.text("\n" if i else "").piece(piece)
            return builder.text("\n\n")
        for piece in pieces:
            builder.piece(" " + piece.strip() if isinstance(piece, str) else piece)
        return builder.special(self.eos)

    def open_turn(self, builder: PromptBuilder, role: Role) -> PromptBuilder:
        """Add "ROLE:", after which the speaker goes on."""
        name = self.user if role == "user" else self.assistant
        named = builder.special(name) if is_special(self.tokenizer, name) else builder.text(name)
        return named.text(":")

    def picture(
        self, pixels: Tensor, digest: str, encode: Callable[[Tensor], Tensor]
    ) -> EncodedImage:
        """A picture between its marks; see `vision_embeddings` for the arguments."""
        begin, place, end = map(
            self.tokenizer.id, (self.begin_of_image, self.placeholder, self.end_of_image)
        )
        embeddings = vision_embeddings(pixels, digest, encode, self.picture_length, place)
        return EncodedImage(((begin,), embeddings, (end,)))

    def answer(self, messages: Sequence[Message], system: str = "") -> Branch:
        """The prompt after which the model writes its next message."""
        return self._open(messages, system).branch()

    def draw(self, messages: Sequence[Message], system: str = "") -> Branch:
        """The prompt after which the model draws: it ends in begin-of-image."""
        return self._open(messages, system).special(self.begin_of_image).branch()

    def _open(self, messages: Sequence[Message], system: str) -> PromptBuilder:
        builder = self.start(system)
        for message in messages:
            self.turn(builder, message)
        return self.open_turn(builder, "assistant")

    def negative(self, text: str) -> Branch:
        """What guidance steers away from when the user says it in words."""
        return self.draw([Message("user", text)])

    def unconditional(self, prompt: Branch) -> Branch:
        """What guidance steers away from: the prompt with pads for all but its ends.

        The pads are attended to, as in the reference, so that it depends on its length alone.
        """
        pads = [self.tokenizer.id(self.pad)] * (len(prompt.token_ids) - 2)
        return Branch((prompt.token_ids[0], *pads, prompt.token_ids[-1]))

    def check(self) -> None:
        """Raise ValueError if the tokenizer lacks a token that prompts need."""
        pictures = (self.begin_of_image, self.placeholder, self.end_of_image)
        for token in (self.bos, self.eos, self.pad, *pictures):
            self.tokenizer.id(token)


def stripped(pieces: Sequence[str | EncodedImage]) -> list[str | EncodedImage]:
    """The pieces of a message without the space around them, and without empty texts."""
    ends = list(pieces)
    if ends and isinstance(first := ends[0], str):
        ends[0] = first.lstrip()
    if ends and isinstance(last := ends[-1], str):
        ends[-1] = last.rstrip()
    return [piece for piece in ends if piece]


def is_special(tokenizer: TextTokenizer, token: str) -> bool:
    """Whether trusted text makes one id of it, which a user's text does not."""
    return tokenizer.encode(token, add_special=False) != tokenizer.encode_plain(token)


def read_roles(folder: Path, tokenizer: TextTokenizer) -> tuple[str, str]:
    """Whether the speakers are those of Janus-Pro or, of Janus-1.3B, plain words.

    A chat template says so if there is one. If not, processor_config.json may: "deepseek_old" is
    DeepSeek's name for the plain ones. Else Janus-Pro's hold if the tokenizer has such tokens.
    """
    pro = PRO_ROLES[0]
    if template := read_chat_template(folder):
        return PRO_ROLES if pro in template else PLAIN_ROLES
    processor = read_json(folder / "processor_config.json", optional=True)
    if processor.get("sft_format") == "deepseek_old":
        return PLAIN_ROLES
    return PRO_ROLES if is_special(tokenizer, pro) else PLAIN_ROLES


def read_chat_template(folder: Path) -> str:
    """The text of a folder's chat template, wherever it stands; "" if there is none."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return read_text(file)
    documents = ("chat_template.json", "processor_config.json", "tokenizer_config.json")
    found = (read_json(folder / d, optional=True).get("chat_template") for d in documents)
    template = next((t for t in found if t), "")
    return template if isinstance(template, str) else json.dumps(template, ensure_ascii=False)
