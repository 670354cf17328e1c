"""The bytes that tokens stand for, as far as both libraries spell them alike."""

from unitok_tokenizers.text_backend import BYTE_PIECES

_BYTE_OF_PIECE = {piece: bytes([byte]) for byte, piece in enumerate(BYTE_PIECES)}


def byte_letters() -> list[str]:
    """What byte-level BPE writes for each byte: itself if it shows in Latin-1, else one above."""
    shown = {*range(33, 127), *range(161, 173), *range(174, 256)}
    hidden = [byte for byte in range(256) if byte not in shown]
    return [chr(byte if byte in shown else 256 + hidden.index(byte)) for byte in range(256)]


def byte_of_piece(piece: str) -> bytes | None:
    """The byte of a piece such as `<0x0A>`; None for any other piece."""
    return _BYTE_OF_PIECE.get(piece)
