"""A chat model of 270 kB for a real Ollama, whose every answer is known; nothing is trained or downloaded.

The template turns a conversation into one marker, and the weights make a chain of tokens follow each marker:
attention and feed-forward are zero, so only the last token counts. It cannot copy from what it reads: the
question that it asks of the tool is fixed, and whether passages reached it shows in which answer it gives.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tests.live.tiny_ollama import file_format
from tests.live.tiny_ollama.file_format import (
    BYTE_TOKEN,
    CONTROL_TOKEN,
    NORMAL_TOKEN,
    UNKNOWN_TOKEN,
    Tensor,
    boolean,
    floats,
    number,
    real,
    string,
    tokens,
)

TOOL = "search_documents"
QUERY = "notice period"
CITED = ("The", " documents", " answer", " this", " [1]", ".")
NOTHING = ("Nothing", " was found", " about it.")
GREETING = ("Hello", " from", " a tiny", " model.")
CHAINS: dict[str, Sequence[str]] = {
    "<|call|>": (f'{{"name": "{TOOL}", ', '"parameters": ', json.dumps({"query": QUERY}), "}"),
    "<|cited|>": CITED,
    "<|nothing|>": NOTHING,
    "<|greeting|>": GREETING,
}
"""The tokens that follow each marker, until the end of the answer; none is in two chains."""
READ_MARKER = """{{- $marker := "<|greeting|>" }}
{{- range .Messages }}
{{- if eq .Role "tool" }}
{{- $marker = "<|nothing|>" }}
{{- if eq (printf "%.3s" .Content) "[1]" }}{{ $marker = "<|cited|>" }}{{ end }}
{{- else if $.Tools }}{{ $marker = "<|call|>" }}
{{- end }}
{{- range .ToolCalls }}{"name": "{{ .Function.Name }}", "parameters": {{ .Function.Arguments }}}{{ end }}
{{- end }}{{ $marker }}"""
"""Ollama's template. What a tool found begins with `[1]`. Calls stand in it because Ollama learns from there
how this model writes them."""
TOOLLESS = "{{- range .Messages }}{{ end }}<|greeting|>"
"""The template of the same model for which Ollama refuses tools."""

WIDTH, CONTEXT = 64, 8192
UNKNOWN, BEGIN, END = 0, 1, 2
"""Numbers of the first tokens."""


@dataclass(frozen=True)
class Vocabulary:
    tokens: list[str]
    types: list[int]
    follows: list[tuple[int, int]]
    """A token, and the one that comes after it."""


def vocabulary() -> Vocabulary:
    """The special tokens, all bytes (so that any text can be read), the markers and what follows them."""
    texts = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    types = [UNKNOWN_TOKEN, CONTROL_TOKEN, CONTROL_TOKEN, *[BYTE_TOKEN] * 256]
    follows: list[tuple[int, int]] = []
    for marker, chain in CHAINS.items():
        start = len(texts)
        texts += [marker, *(piece.replace(" ", "\u2581") for piece in chain)]
        types += [CONTROL_TOKEN, *[NORMAL_TOKEN] * len(chain)]
        follows += [*pairwise([*range(start, len(texts)), END])]
    assert len(set(texts)) == len(texts)
    return Vocabulary(texts, types, follows)


def gguf() -> bytes:
    """The model as a file of the architecture `llama`."""
    words = vocabulary()
    return file_format.file(settings(words), tensors(words))


def settings(words: Vocabulary) -> Mapping[str, bytes]:
    count = len(words.tokens)
    return {
        "general.architecture": string("llama"),
        "general.name": string("tiny"),
        "llama.block_count": number(1),
        "llama.context_length": number(CONTEXT),
        "llama.embedding_length": number(WIDTH),
        "llama.feed_forward_length": number(WIDTH),
        "llama.attention.head_count": number(2),
        "llama.attention.head_count_kv": number(2),
        "llama.attention.layer_norm_rms_epsilon": real(1e-5),
        "llama.rope.dimension_count": number(WIDTH // 2),
        "llama.vocab_size": number(count),
        "tokenizer.ggml.model": string("llama"),
        **tokens(words.tokens, words.types),
        "tokenizer.ggml.bos_token_id": number(BEGIN),
        "tokenizer.ggml.eos_token_id": number(END),
        "tokenizer.ggml.unknown_token_id": number(UNKNOWN),
        "tokenizer.ggml.add_bos_token": boolean(True),
        "tokenizer.ggml.add_space_prefix": boolean(False),
    }


def tensors(words: Vocabulary) -> Iterable[Tensor]:
    count = len(words.tokens)
    read, written = ([0.0] * (count * WIDTH) for _ in range(2))
    assert len(words.follows) <= WIDTH
    for axis, (before, after) in enumerate(words.follows):
        read[before * WIDTH + axis] = 1.0
        # normalised, the 1 above is 8: the token that follows gets a logit of 64, all others 0
        written[after * WIDTH + axis] = 8.0
    yield "token_embd.weight", (WIDTH, count), floats(read)
    yield "output.weight", (WIDTH, count), floats(written)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        yield f"{name}.weight", (WIDTH,), floats([1.0] * WIDTH)
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        yield f"blk.0.{name}.weight", (WIDTH, WIDTH), floats([0.0] * (WIDTH * WIDTH))
