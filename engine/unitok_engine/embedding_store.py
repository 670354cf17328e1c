"""The embeddings of one request, kept until it ends."""

from torch import Tensor

from unitok_engine.request import Embeddings


class EmbeddingStore:
    """The vectors of a request's embeddings, by their digests."""

    def __init__(self) -> None:
        self._vectors: dict[str, Tensor] = {}

    def __contains__(self, embeddings: Embeddings) -> bool:
        return embeddings.digest in self._vectors

    def get(self, embeddings: Embeddings) -> Tensor:
        """The vectors, [length, d].

        Raises:
            KeyError: They were not put here.
        """
        return self._vectors[embeddings.digest]

    def put(self, embeddings: Embeddings, vectors: Tensor, width: int) -> None:
        """Keep vectors.

        Raises:
            ValueError: Their shape is not [length, width].
        """
        if vectors.shape != (embeddings.length, width):
            wanted, shape = f"[{embeddings.length}, d] with d = {width}", list(vectors.shape)
            raise ValueError(f"embeddings must be {wanted}, not {shape}")
        self._vectors[embeddings.digest] = vectors
