"""A model that is an ONNX file already: it can be run and quantized as a graph, but there is no module to change.

Checked before anything runs it: the file is whole, and the tensors it keeps outside lie in its own folder (an
absolute path or ".." is refused, as the ONNX specification demands of readers:
https://onnx.ai/onnx/repo-docs/ExternalData.html). Class names come from a config.json beside it, where there is one.
Left out: models with an input besides the tokenizer's, sequence outputs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from workbench.draft import ModelFacts
from workbench.errors import ModelError, UnsafeModel
from workbench.loading.folder import first_line
from workbench.loading.hashing import hash_files, hash_json
from workbench.loading.memory import check_room
from workbench.loading.source import Source
from workbench.loading.tokens import Encoder, TokenizerEncoder

#: Nodes whose second input may be a constant matrix: the quantizable layers of a graph.
_LAYERS = ("MatMul", "Gemm")


class OnnxFile(Source):
    """An ONNX file with the tokenizer in its folder, or another one."""

    def __init__(self, path: Path, *, encoder: Encoder | None = None) -> None:
        self.onnx = self.path = Path(path)
        self._encoder = encoder

    def check(self) -> None:
        self.inputs()
        self.labels()
        check_room(2 * sum(file.stat().st_size for file in self._files()), str(self.path))

    def labels(self) -> tuple[str, ...]:
        classes = self._classes()
        config = self.path.parent / "config.json"
        if config.is_file():
            names = json.loads(config.read_text(encoding="utf-8")).get("id2label") or {}
            if len(names) == classes:
                return tuple(str(names[key]) for key in sorted(names, key=int))
        return tuple(f"LABEL_{i}" for i in range(classes))

    def facts(self) -> ModelFacts:
        graph = self._model.graph
        constants = {tensor.name: tensor for tensor in graph.initializer}
        layers = tuple(
            node.name
            for node in graph.node
            if node.op_type in _LAYERS and node.name and any(name in constants for name in node.input[1:2])
        )
        floats = (1, 10, 11, 16)
        parameters = sum(math.prod(t.dims) for t in graph.initializer if t.data_type in floats)
        return ModelFacts(self.path.stem, has_module=False, layers=layers, parameters=parameters)

    def inputs(self) -> tuple[str, ...]:
        constants = {tensor.name for tensor in self._model.graph.initializer}
        names = tuple(value.name for value in self._model.graph.input if value.name not in constants)
        given = self.encoder().names()
        if not names or set(names) - set(given):
            raise ModelError(
                f"{self.path} takes {', '.join(names)}, and its tokenizer gives {', '.join(given)}.",
                allowed="inputs named as the tokenizer names them",
                do="export it again with those names, or give collate='package.module:function'",
            )
        return names

    def encoder(self) -> Encoder:
        if self._encoder is None:
            self._encoder = TokenizerEncoder(self.path.parent)
        return self._encoder

    def load(self) -> None:
        self.check()

    def fingerprint(self) -> str:
        return hash_json([hash_files(self._files()), self.labels()])

    @cached_property
    def _model(self) -> Any:
        """The graph without the tensors that lie outside it."""
        import onnx
        from google.protobuf.message import DecodeError

        if not self.path.is_file():
            raise ModelError(f"There is no file {self.path}.", do="check the path")
        try:
            model = onnx.load(str(self.path), load_external_data=False)
        except (DecodeError, OSError) as error:
            raise self._damaged(first_line(error)) from error
        if not model.graph.node or not model.graph.output:
            raise self._damaged("it holds no graph")
        self._check_outside(model)
        try:
            onnx.checker.check_model(str(self.path))
        except (onnx.checker.ValidationError, ValueError) as error:
            raise self._damaged(first_line(error)) from error
        return model

    def _check_outside(self, model: Any) -> None:
        """Refuse tensors that lie outside the file's folder, before anything opens them."""
        for name, entries in _outside(model):
            location = entries.get("location", "")
            folder = self.path.parent.resolve()
            target = (folder / location).resolve()
            if Path(location).is_absolute() or ".." in Path(location).parts or not target.is_relative_to(folder):
                raise UnsafeModel(
                    f"{self.path} keeps the tensor {name!r} outside its folder: {location!r}.",
                    allowed="external data in the folder of the ONNX file or below it",
                    do="save it again with onnx.save_model(model, path, save_as_external_data=True, location='name')",
                )
            length = int(entries.get("offset") or 0) + int(entries.get("length") or 0)
            if not target.is_file() or target.stat().st_size < max(length, 1):
                state = "is truncated" if target.is_file() else "is missing"
                raise ModelError(
                    f"{target}, where {self.path.name} keeps the tensor {name!r}, {state}.",
                    do="copy it there again, beside the ONNX file",
                )

    def _classes(self) -> int:
        outputs = {value.name: value for value in self._model.graph.output}
        logits = outputs.get("logits") or next(iter(outputs.values()))
        dims = logits.type.tensor_type.shape.dim
        if len(dims) == 2 and dims[1].dim_value >= 2:
            return int(dims[1].dim_value)
        return self._run_one()

    def _run_one(self) -> int:
        """The number of logits that one example gives, where the graph does not say."""
        import numpy as np
        import onnxruntime

        example = self.encoder().encode([("a",)], self.inputs(), 16)[0]
        session = onnxruntime.InferenceSession(str(self.path), providers=["CPUExecutionProvider"])
        logits = session.run(None, {name: np.array([tokens]) for name, tokens in example.items()})[0]
        if logits.ndim != 2 or logits.shape[1] < 2:
            raise ModelError(
                f"{self.path} gives {logits.shape} for one example.",
                allowed="logits of shape (batch, classes) with at least two classes",
            )
        return int(logits.shape[1])

    def _files(self) -> list[Path]:
        outside = {self.path.parent / entries["location"] for _, entries in _outside(self._model)}
        return [self.path, *sorted(outside)]

    def _damaged(self, why: str) -> ModelError:
        return ModelError(
            f"{self.path} is truncated or no ONNX file: {why}", do="download it again, or export the model again"
        )


def _outside(model: Any) -> Iterator[tuple[str, dict[str, str]]]:
    """Name and entries of every tensor kept outside the file: in the graph, its subgraphs and attributes."""
    for tensor in _tensors(model.graph):
        if tensor.external_data or tensor.data_location == tensor.EXTERNAL:
            yield tensor.name, {entry.key: entry.value for entry in tensor.external_data}
    for function in model.functions:
        for node in function.node:
            for tensor in _of_node(node):
                if tensor.external_data:
                    yield tensor.name, {entry.key: entry.value for entry in tensor.external_data}


def _tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from _of_node(node)


def _of_node(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        if attribute.HasField("g"):
            yield from _tensors(attribute.g)
        for graph in attribute.graphs:
            yield from _tensors(graph)
