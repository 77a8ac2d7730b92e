"""An embedding model of 640 kB for a real Ollama: texts that share pairs of letters are close.

A bag of letter pairs with a fixed random vector for each, averaged: attention and feed-forward are zero, and
nothing is trained.
"""

from __future__ import annotations

import random
import string as letters
from collections.abc import Iterable, Mapping

from tests.live.tiny_ollama import file_format
from tests.live.tiny_ollama.file_format import (
    CONTROL_TOKEN,
    NORMAL_TOKEN,
    Tensor,
    boolean,
    floats,
    number,
    real,
    string,
    tokens,
)

WIDTH, CONTEXT = 64, 512
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
MEAN_POOLING = 1


def gguf(seed: int = 7) -> bytes:
    """The model as a file of the architecture `bert`; another seed is another file."""
    return file_format.file(settings(), tensors(seed))


def vocabulary() -> list[str]:
    """Of WordPiece: the start of a word carries U+2581, what follows in it nothing."""
    pairs = [first + second for first in letters.ascii_lowercase for second in letters.ascii_lowercase]
    words = [*letters.ascii_lowercase, *letters.digits, *pairs]
    return [*SPECIAL, *(f"\u2581{word}" for word in (*words, *letters.punctuation)), *words]


def settings() -> Mapping[str, bytes]:
    words = vocabulary()
    types = [CONTROL_TOKEN if word in SPECIAL else NORMAL_TOKEN for word in words]
    return {
        "general.architecture": string("bert"),
        "general.name": string("tiny-embed"),
        "bert.block_count": number(1),
        "bert.context_length": number(CONTEXT),
        "bert.embedding_length": number(WIDTH),
        "bert.feed_forward_length": number(WIDTH),
        "bert.attention.head_count": number(2),
        "bert.attention.layer_norm_epsilon": real(1e-12),
        "bert.attention.causal": boolean(False),
        "bert.pooling_type": number(MEAN_POOLING),
        "tokenizer.ggml.model": string("bert"),
        **tokens(words, types),
        "tokenizer.ggml.token_type_count": number(2),
        "tokenizer.ggml.bos_token_id": number(2),
        "tokenizer.ggml.eos_token_id": number(3),
        "tokenizer.ggml.unknown_token_id": number(1),
        "tokenizer.ggml.seperator_token_id": number(3),
        "tokenizer.ggml.cls_token_id": number(2),
        "tokenizer.ggml.padding_token_id": number(0),
    }


def tensors(seed: int) -> Iterable[Tensor]:
    count, chance = len(vocabulary()), random.Random(seed)  # noqa: S311 - weights
    yield "token_embd.weight", (WIDTH, count), floats([chance.gauss(0, 1) for _ in range(count * WIDTH)])
    yield "token_types.weight", (WIDTH, 2), floats([0.0] * (2 * WIDTH))
    yield "position_embd.weight", (WIDTH, CONTEXT), floats([0.0] * (CONTEXT * WIDTH))
    for name in ("token_embd_norm", "blk.0.attn_output_norm", "blk.0.layer_output_norm"):
        yield f"{name}.weight", (WIDTH,), floats([1.0] * WIDTH)
        yield f"{name}.bias", (WIDTH,), floats([0.0] * WIDTH)
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down"):
        yield f"blk.0.{name}.weight", (WIDTH, WIDTH), floats([0.0] * (WIDTH * WIDTH))
        yield f"blk.0.{name}.bias", (WIDTH,), floats([0.0] * WIDTH)
