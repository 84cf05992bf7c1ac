"""OpenAI's /v1/embeddings: what it takes and what it gives.

Reference: OpenAI API reference, "Create embeddings".
"""

from __future__ import annotations

import base64
from typing import Any, Literal

import numpy as np

from .tei import Request, Texts


class Embeddings(Request):
    """POST /v1/embeddings. user: passed over, as it says nothing of what is computed."""

    input: Texts
    model: str
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    user: str | None = None


def embeddings(asked: Embeddings, vectors: np.ndarray, tokens: int) -> dict[str, Any]:
    """The answer. base64: of each vector's float32 numbers, little-endian."""
    rows: list[Any] = list(vectors)
    if asked.encoding_format == "base64":
        rows = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in vectors]
    data = [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": asked.model, "usage": usage}
