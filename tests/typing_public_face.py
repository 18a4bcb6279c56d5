"""What a user's type checker sees: mypy checks this file with the package, and nothing runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, assert_type

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn.pipeline import Pipeline

import skadacomp
from skadacomp import (
    AdaptiveCodebookCompressor,
    CompressedTable,
    EmbeddingTable,
    FormatError,
    FrozenClassifier,
    freeze,
    to_onnx,
)
from skadacomp.display import CodeLengthDisplay, SizeAccuracyDisplay
from skadacomp.nn import CodebookEmbedding


def tables(path: Path, vectors: NDArray[np.float64]) -> EmbeddingTable:
    table = EmbeddingTable(["coffee", "tea"], vectors)
    EmbeddingTable(None, [[0.5, 1.0], [1.0, 0.5]])
    opened = EmbeddingTable.open(path, words=["coffee", "tea"], cache=True, verbose=1)
    assert_type(opened, EmbeddingTable)
    assert_type(table.words, tuple[str, ...] | None)
    assert_type(table.vectors, NDArray[np.float32])
    assert_type(table["tea"], NDArray[np.float32])
    assert_type("tea" in table, bool)
    return table


def compressing(table: EmbeddingTable, texts: list[str], labels: list[str]) -> None:
    compressor = AdaptiveCodebookCompressor(
        embeddings=table, code_lengths=(0, 2, 4), bits_per_word=8.0, random_state=0
    )
    assert_type(compressor.fit(texts, labels), AdaptiveCodebookCompressor)
    compressor.fit(table).fit(table, texts, labels).fit(table, X_task=texts, y_task=labels)
    codes = compressor.transform(table)
    assert_type(codes, sparse.csr_matrix | NDArray[np.float32])
    assert_type(compressor.inverse_transform(codes), NDArray[np.float32])
    assert_type(compressor.compressed_, CompressedTable)
    assert_type(compressor.code_lengths_, NDArray[np.int64])
    assert_type(compressor.codes_, NDArray[np.integer])
    assert_type(compressor.codebooks_, NDArray[np.float32])
    assert_type(compressor.sizes_, dict[str, int])
    assert_type(compressor.nbytes_, int)
    assert_type(compressor.compression_ratio_, float)


def shipping(pipe: Pipeline, path: Path, texts: list[str]) -> None:
    frozen = freeze(pipe)
    assert_type(frozen, FrozenClassifier)
    frozen.save(path)
    assert_type(FrozenClassifier.open(path).predict_proba(texts), NDArray[np.float32])
    try:
        shipped = CompressedTable.open(str(path))
    except FormatError as error:
        raise SystemExit(str(error)) from error
    assert_type(shipped["coffee"], NDArray[np.float32])
    assert_type(shipped.vectors(["coffee", "tea"], missing="mean"), NDArray[np.float32])
    assert_type(shipped.vectors([17, 4]), NDArray[np.float32])
    assert_type(shipped.documents(texts), NDArray[np.float32])
    assert_type(shipped.nearest("coffee", 5), list[tuple[str | int, float]])
    assert_type(shipped.words, list[str] | None)
    to_onnx(pipe, path, output="probabilities")
    skadacomp.export.to_words_json(shipped, path)


def beside(pipe: Pipeline, table: EmbeddingTable, shipped: CompressedTable) -> None:
    assert_type(skadacomp.metrics.reconstruction_error(table, shipped), float)
    assert_type(skadacomp.metrics.n_bytes(pipe), int)
    rule = skadacomp.metrics.smallest_within(std=1)
    assert_type(rule, Callable[[Mapping[str, Any]], int])
    assert_type(CodeLengthDisplay.from_estimator(pipe), CodeLengthDisplay)
    SizeAccuracyDisplay.from_points([1000, 2000], [0.8, 0.9], methods="ours")
    layer = CodebookEmbedding.from_compressed(shipped, padding_idx=0)
    assert_type(layer, CodebookEmbedding)
    assert_type(layer(torch.tensor([0, 1])), Any)
    assert_type(skadacomp.__version__, str)
