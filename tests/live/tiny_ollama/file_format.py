"""Files of models in GGUF, version 3: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence

ALIGNMENT = 32
"""Of tensors' data, in bytes."""
U32, F32, BOOL, STRING, ARRAY, I32 = 4, 6, 7, 8, 9, 5
"""Types of values."""
NORMAL_TOKEN, UNKNOWN_TOKEN, CONTROL_TOKEN, BYTE_TOKEN = 1, 2, 3, 6

Tensor = tuple[str, tuple[int, ...], bytes]
"""Name, shape (the fastest dimension first) and little-endian 32-bit floats."""


def file(given: Mapping[str, bytes], tensors: Iterable[Tensor]) -> bytes:
    """The whole file of these settings and tensors."""
    shapes = list(tensors)
    head = [b"GGUF", struct.pack("<IQQ", 3, len(shapes), len(given))]
    head += [text(name) + value for name, value in given.items()]
    offset = 0
    for name, shape, data in shapes:
        head.append(text(name) + struct.pack("<I", len(shape)))
        head.append(struct.pack(f"<{len(shape)}QIQ", *shape, 0, offset))
        offset += len(padded(data))
    return padded(b"".join(head)) + b"".join(padded(data) for _, _, data in shapes)


def tokens(texts: Sequence[str], types: Sequence[int]) -> Mapping[str, bytes]:
    """The vocabulary, each token as likely as any other."""
    count = len(texts)
    return {
        "tokenizer.ggml.tokens": array(STRING, map(text, texts), count),
        "tokenizer.ggml.token_type": array(I32, (struct.pack("<i", kind) for kind in types), count),
        "tokenizer.ggml.scores": array(F32, [struct.pack("<f", 0.0)] * count, count),
    }


def text(value: str) -> bytes:
    encoded = value.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def string(value: str) -> bytes:
    return struct.pack("<I", STRING) + text(value)


def number(value: int) -> bytes:
    return struct.pack("<II", U32, value)


def real(value: float) -> bytes:
    return struct.pack("<If", F32, value)


def boolean(value: bool) -> bytes:
    return struct.pack("<I?", BOOL, value)


def array(kind: int, items: Iterable[bytes], count: int) -> bytes:
    return struct.pack("<IIQ", ARRAY, kind, count) + b"".join(items)


def floats(values: Sequence[float]) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % ALIGNMENT)
