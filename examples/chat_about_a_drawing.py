"""Have something drawn, then ask about it, in one conversation.

    python examples/chat_about_a_drawing.py
    python examples/chat_about_a_drawing.py "a cat left of a house" "what is left of the house?"

OUT gets drawing.png and transcript.txt. The model sees its own drawing as it sees any picture: what
it answers is read from the pixels, not from the prompt.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import unitok

PROMPT = "three stars on a pink background"
QUESTIONS = ["what is this?", "how many stars are there?", "what colour is the background?"]


def ask(chat: unitok.Chat, question: str) -> str:
    """The answer to a question, shown while it comes."""
    print(f"> {question}")
    answer = ""
    for event in chat.stream(question):
        answer += event.text
        print(event.text, end="", flush=True)
    print()
    return answer


def main() -> None:
    """Read the command line, draw, ask, write down what was said."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "prompt", nargs="?", default=PROMPT, help="what to draw (default: %(default)s)"
    )
    parser.add_argument(
        "questions", nargs="*", default=QUESTIONS, metavar="question", help="what to ask about it"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="the same one draws the same (default: %(default)s)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("out/chat"),
        help="a folder for the results (default: %(default)s)",
    )
    args = parser.parse_args()

    args.out.mkdir(parents=True, exist_ok=True)
    with unitok.load() as model:
        chat = model.chat()
        chat.draw(args.prompt, seed=args.seed).image.save(args.out / "drawing.png")
        print(f"> draw: {args.prompt}\n{args.out / 'drawing.png'}")
        answers = [ask(chat, question) for question in args.questions]
    turns = [("draw: " + args.prompt, "drawing.png"), *zip(args.questions, answers, strict=True)]
    transcript = "".join(f"> {said}\n{answer}\n" for said, answer in turns)
    (args.out / "transcript.txt").write_text(transcript, encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(f"error: {error}")
