"""Splits captions into words as the evaluation of COCO captions does.

That evaluation (https://arxiv.org/abs/1504.00325) runs the PTBTokenizer of Stanford CoreNLP 3.4.1,
a Java program, with `-lowerCase`, and then drops punctuation. This follows its rules for English
captions, so that no Java is needed: contractions are split off, hyphenated words, abbreviations and
numbers stay whole, and brackets become words. What captions seldom have may be split differently:
smileys, code, words of other scripts.
"""

import re

# Brackets are on that list in capitals, and come in small letters, so they are kept. Published
# scores are computed so.
DROPPED = frozenset("'' ' `` ` -LRB- -RRB- -LCB- -RCB- . ? ! , : - -- ... ;".split())

# What the tokenizer writes in place of a character.
RENAMED = {
    "(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-",
    "£": "#", "€": "$", "¢": "cents", "…": "...", "—": "--", "–": "--", '"': "''",
    "½": "1/2", "¼": "1/4", "¾": "3/4",
}  # fmt: skip
APOSTROPHES = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "`": "'"})

# Words that keep a full stop behind them, even at the end of a sentence.
ABBREVIATIONS = (
    "adm al ala apr ariz assn assoc atty aug ave bldg blvd brig bros calif capt cf cmdr co col "
    "colo comdr conn corp cos cpl ct dak dec dept det dr drs esq est etc ext feb fla fri ft ga "
    "gen gov govs hon inc ind intl jan jr jul jun kan kans ky lieut lt ltd maj mar md messrs "
    "mich minn mo mon mont mr mrs ms mt natl neb nev nov oct okla penn pfc ph plc pres prof "
    "profs pvt rd rep reps rev rt sen sens sep sept seq sgt spc sq sr st ste supt tel tenn thu "
    "thurs tue tues univ va vs vt wed wis wisc wyo"
).split()
# These keep it only if they begin with a capital letter, as states do, or if a number follows.
CAPITALS = "Ark Az Del Ill La Mass Miss Ore Pa Tex Wash".split()
BEFORE_NUMBERS = "ca fig no nos op pp prop".split()

_LETTER, _CHARACTER = r"[^\W\d_]", r"[^\W_]"
_TOKEN = re.compile(
    "|".join(
        (
            r"(?:https?://|www\.)\S*[^\s.,;:!?)'\"]|[\w.+-]+@[\w-]+(?:\.[\w-]+)+",  # addresses
            r"</?(?i:[a-z])[^<>]*>",
            r"--+|\.\.+|[?!]+",
            r"(?i:can)(?=(?i:not)\b)|(?i:gon|wan)(?=(?i:na)\b)|(?i:got)(?=(?i:ta)\b)",
            r"(?i:gim|lem)(?=(?i:me)\b)|'(?i:t)(?=(?i:is|was)\b)|(?i:y)'(?=(?i:all)\b)",
            rf"{_LETTER}+?(?=(?i:n't)\b)|(?i:n't)\b",  # do|n't
            r"'(?i:s|m|d|re|ve|ll|em|cause|til)\b|'(?i:n)'|'\d0s\b",
            r"(?i:[odl])'[^\W\d_]{2,}|(?i:ma'am)",
            r"(?i:ph\.d\.)",
            rf"{_LETTER}\.(?:{_LETTER}\.)*(?!{_CHARACTER})",  # u.s., and single letters
            rf"(?i:{'|'.join(ABBREVIATIONS)})\.(?!{_CHARACTER})",
            rf"(?:{'|'.join(CAPITALS)})\.(?!{_CHARACTER})",
            rf"(?i:{'|'.join(BEFORE_NUMBERS)})\.(?=\s*\d)",
            r"\d+(?:[.,:/-]\d+)+(?:st|nd|rd|th)?|\.\d+",
            rf"[#@]{_LETTER}\w*",
            # Words, with full stops inside, with digits, with hyphens.
            rf"{_LETTER}{_CHARACTER}*(?:[.?!]{_LETTER}{_CHARACTER}*)+",
            r"[A-Z]+(?:&[A-Z]+)+",
            rf"{_CHARACTER}+(?:[-/_]{_CHARACTER}+)*",
            r"#+|\*+|\++|\S",
        )
    )
)


def caption_words(caption: str) -> list[str]:
    """The words of a caption, in small letters and without punctuation.

    Args:
        caption: Any text; line ends count as blanks.
    """
    tokens: list[str] = _TOKEN.findall(caption.translate(APOSTROPHES))
    return [word for word in map(_word, tokens) if word not in DROPPED]


def _word(token: str) -> str:
    """What the tokenizer writes for a token."""
    return "..." if token.startswith("..") else RENAMED.get(token, token.lower())
