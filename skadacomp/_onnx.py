"""A compressed table, and a linear classifier on it, as an ONNX graph with codes inside.

The graph unpacks the codes of the words that it is given. Where a row's codes begin follows from
the code lengths. Those lie in the graph as steps from one row of a length to the next, in a code
that is read all at once: the one of our file is read row after row, which a graph can do but
slowly. Where that would take more, in a small table or one with many rows of each length, they lie
there row by row. A runtime reads them when it loads the graph: none of it depends on the input.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skadacomp._codebooks import axis_steps, codebook_steps
from skadacomp._codes import code_width, pack
from skadacomp._compressed import CompressedTable
from skadacomp._frozen import FrozenClassifier

if TYPE_CHECKING:
    import onnx

OPSET = 26
_BLOCK = 128  # steps that share a width; a multiple of 8, so that each block fills whole bytes
_SMALLEST = np.finfo(np.float32).tiny  # divides nothing but zeros


# ---------------------------------------------------------------------------------------------
# Nodes and constants


class Graph:
    """Nodes and constants, with short names: the file holds each name many times."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], onnx.TensorProto] = {}

    @property
    def constants(self) -> list[onnx.TensorProto]:
        """Constants that nodes were given."""
        return list(self._constants.values())

    @property
    def nbytes(self) -> int:
        """Bytes that they take."""
        nodes = sum(node.ByteSize() for node in self.nodes)
        return nodes + sum(constant.ByteSize() for constant in self.constants)

    def __call__(self, kind: str, *inputs: Any, **attributes: Any) -> str:
        """Add a node of names, arrays or ints; give the name of its output."""
        from onnx import helper

        names = [each if isinstance(each, str) else self._constant(each) for each in inputs]
        output = f"{len(self.nodes):x}"
        self.nodes.append(helper.make_node(kind, names, [output], **attributes))
        return output

    def cast(self, values: Any, dtype: type[np.generic]) -> str:
        """Add a node that changes the type of numbers."""
        from onnx import helper

        return self("Cast", values, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def _constant(self, values: Any) -> str:
        from onnx import TensorProto, helper, numpy_helper

        array = np.asarray(values)
        key = array.dtype.str, array.shape, array.tobytes()
        if key not in self._constants:
            name = f"c{len(self._constants):x}"
            if array.dtype == np.int64:  # most are small, and then take a byte each in this form
                numbers = array.ravel().tolist()
                tensor = helper.make_tensor(name, TensorProto.INT64, array.shape, numbers)
            else:
                tensor = numpy_helper.from_array(array, name)
            self._constants[key] = tensor
        return self._constants[key].name


def _read_bits(graph: Graph, packed: NDArray[np.uint8], places: str, n_touched: int) -> str:
    """Read packed numbers from any bits on, with bits of others above their own.

    Parameters
    ----------
    graph : Graph
    packed : ndarray (n_bytes,) uint8
        As `pack` gives them.
    places : str
        The bits where numbers begin, int64.
    n_touched : int
        Bytes that a number may touch, at most 7.
    """
    packed = np.pad(packed, (0, n_touched))  # what the last numbers touch beyond their own bits
    byte = graph("Div", places, 8)
    if n_touched == 1:
        value = graph.cast(graph("Gather", packed, byte), np.int64)
    else:
        byte = graph("Add", graph("Unsqueeze", byte, [-1]), np.arange(n_touched))
        value = graph.cast(graph("Gather", packed, byte), np.int64)  # (..., n_touched)
        value = graph("Squeeze", graph("MatMul", value, 256 ** np.arange(n_touched)[:, None]), [-1])
    return graph("Div", value, graph("Pow", 2, graph("Mod", places, 8)))


def _n_touched(width: int) -> int:
    """Bytes that a number may touch, of numbers of one width that lie side by side."""
    return 1 if 8 % width == 0 else (width + 14) // 8


# ---------------------------------------------------------------------------------------------
# Code lengths


class Steps(NamedTuple):
    """Code lengths as steps from row to row.

    All rows of one length follow those of another, but for the most frequent length, which needs
    no rows. A step of a block of width b is ``high * 2**b - low``: the high part in unary, and the
    low one in b bits.

    Parameters
    ----------
    common : int
        The most frequent length.
    lengths : ndarray (n_lengths,) int64
        The others.
    n_steps : int
        Rows of other lengths. Further steps, one at least, fill the last block.
    widths : ndarray (n_blocks, 1) uint8
        Bits of low parts.
    high : ndarray (n_bytes, 1) uint8
        Of each step as many bits as its high part, the last of them 1; of the last step further
        ones, all 0.
    low : ndarray (n_bytes,) uint8
        Low parts, packed.
    """

    common: int
    lengths: NDArray[np.int64]
    n_steps: int
    widths: NDArray[np.uint8]
    high: NDArray[np.uint8]
    low: NDArray[np.uint8]

    @classmethod
    def of(cls, code_lengths: NDArray[np.int64]) -> Steps:
        """Code the lengths of rows (n_words,)."""
        lengths, counts = np.unique(code_lengths, return_counts=True)
        common = int(lengths[counts.argmax()])
        lengths = lengths[lengths != common]
        rows = [np.flatnonzero(code_lengths == length) for length in lengths]
        keys = np.concatenate(
            [n * code_lengths.size + each for n, each in enumerate(rows)] or [np.empty(0, np.int64)]
        )
        steps = np.ones((keys.size // _BLOCK + 1) * _BLOCK, np.int64)
        steps[: keys.size] = np.diff(keys, prepend=-1)
        blocks = steps.reshape(-1, _BLOCK)
        nbits = [(-(-blocks >> width)).sum(axis=1) + _BLOCK * width for width in range(32)]
        widths = np.argmin(nbits, axis=0)[:, None]  # (n_blocks, 1)
        high = -(-blocks >> widths)
        ends = np.zeros(high.sum(), np.uint8)
        ends[high.ravel().cumsum()[:-1] - 1] = 1
        low = (high << widths) - blocks
        packed = [pack(part, width) for part, width in zip(low, widths.flat, strict=True)]
        return cls(
            common,
            lengths,
            keys.size,
            widths.astype(np.uint8),
            pack(ends, 1)[:, None],
            np.concatenate(packed),
        )


def _row_lengths(graph: Graph, code_lengths: NDArray[np.int64]) -> str:
    """Code length of each row, (n_words,) int64, from whichever form is smaller."""

    def nbytes(form: Callable[[Graph, NDArray[np.int64]], str]) -> int:
        alone = Graph()
        form(alone, code_lengths)
        return alone.nbytes

    return min((_stepped_lengths, _packed_lengths), key=nbytes)(graph, code_lengths)


def _packed_lengths(graph: Graph, code_lengths: NDArray[np.int64]) -> str:
    lengths, choices = np.unique(code_lengths, return_inverse=True)
    width = max((lengths.size - 1).bit_length(), 1)
    places = graph("Range", 0, width * choices.size, width)
    values = _read_bits(graph, pack(choices, width), places, _n_touched(width))
    return graph("Gather", lengths, graph("Mod", values, 1 << width))


def _stepped_lengths(graph: Graph, code_lengths: NDArray[np.int64]) -> str:
    steps = Steps.of(code_lengths)
    lengths = graph("ConstantOfShape", [code_lengths.size], value=_tensor(steps.common))
    if not steps.n_steps:
        return lengths
    high = _run_lengths(graph, steps.high, steps.widths.size * _BLOCK)
    high = graph("Reshape", high, [-1, _BLOCK])
    width = graph.cast(steps.widths, np.int64)  # (n_blocks, 1)
    size = graph("Pow", 2, width)
    block = graph("Mul", graph("CumSum", width, 0, exclusive=1), _BLOCK)
    places = graph("Add", block, graph("Mul", width, np.arange(_BLOCK)))  # (n_blocks, _BLOCK)
    n_touched = (int(steps.widths.max()) + 14) // 8
    low = graph("Mod", _read_bits(graph, steps.low, places, n_touched), size)
    step = graph("Reshape", graph("Sub", graph("Mul", high, size), low), [-1])
    keys = graph("Slice", graph("CumSum", step, 0), [0], [steps.n_steps])
    keys = graph("Sub", keys, 1)  # (n_steps,)
    length = graph("Gather", steps.lengths, graph("Div", keys, code_lengths.size))
    rows = graph("Mod", keys, code_lengths.size)
    return graph("ScatterElements", lengths, rows, length)


def _run_lengths(graph: Graph, packed: NDArray[np.uint8], n_runs: int) -> str:
    """Lengths of the runs of bits that end with a 1, (n_runs,) int64."""
    # Not by NonZero: its shape depends on its values, and so runtimes leave it to every call.
    bits = graph("BitwiseAnd", packed, (1 << np.arange(8)).astype(np.uint8))  # (n_bytes, 8)
    bits = graph("Reshape", graph.cast(graph.cast(bits, np.bool_), np.int64), [-1])
    run = graph("CumSum", bits, 0, exclusive=1)  # which run each bit is of
    ones = graph("ConstantOfShape", [8 * packed.size], value=_tensor(1))
    zeros = graph("ConstantOfShape", [n_runs], value=_tensor(0))
    return graph("ScatterElements", zeros, run, ones, reduction="add")


def _tensor(value: int) -> onnx.TensorProto:
    from onnx import TensorProto, helper

    return helper.make_tensor("", TensorProto.INT64, [1], [value])


# ---------------------------------------------------------------------------------------------
# Documents to code features


class Words(NamedTuple):
    """The words of all documents one after the other, as names of (n, 1) arrays.

    Parameters
    ----------
    documents : str
        Which document each is in.
    rows : str
        Its row id.
    weights : str or None
        Its weight; None for 1.
    """

    documents: str
    rows: str
    weights: str | None


def _words(graph: Graph, given: str) -> Words:
    """Find the words of an input, (n_documents, ...)."""
    if given == "counts":
        found = graph("Transpose", graph("NonZero", given))  # (n, 2)
        weights = graph("Unsqueeze", graph("GatherND", given, found), [1])
        return Words(_column(graph, found, 0), _column(graph, found, 1), weights)
    ids = graph("Unsqueeze", given, [1]) if given == "rows" else given
    found = graph("Transpose", graph("NonZero", graph("Add", ids, 1)))  # -1 is no word
    rows = graph("Unsqueeze", graph("GatherND", ids, found), [1])
    return Words(_column(graph, found, 0), rows, None)


def _column(graph: Graph, pairs: str, number: int) -> str:
    return graph("Gather", pairs, [number], axis=1)


def _features(graph: Graph, table: CompressedTable, given: str, pooling: str) -> str:
    """Code features of documents, or of rows, (n, n_codebooks * n_codewords + 1) float32."""
    lengths = _row_lengths(graph, table.code_lengths)
    words = _words(graph, given)
    n_columns = table.n_codebooks * table.n_codewords
    # Of each word as many codes as the longest has: those beyond its own weigh nothing.
    columns = graph("Add", _codes(graph, table, lengths, words), _offsets(table))
    places = graph("Add", graph("Mul", words.documents, n_columns), columns)
    number = np.arange(table.n_codebooks)
    weights = graph("Less", number, graph("Gather", lengths, words.rows))
    weights = graph.cast(weights, np.float32)  # (n, n_codebooks)
    if words.weights is not None:
        weights = graph("Mul", weights, words.weights)
    zeros = graph("ConstantOfShape", graph("Mul", graph("Shape", given, end=1), n_columns))
    sums = graph(
        "ScatterElements",
        zeros,
        graph("Reshape", places, [-1]),
        graph("Reshape", weights, [-1]),
        reduction="add",
    )
    sums = graph("Reshape", sums, [-1, n_columns])
    # Each word that has a code has one of the first codebook.
    first = graph("Slice", sums, [0], [table.n_codewords], [1])
    total = graph("ReduceSum", first, [1])  # (n_documents, 1)
    if given == "rows":
        return graph("Concat", sums, graph("Max", total, np.float32(1)), axis=1)
    pooled = graph("Concat", sums, total, axis=1)
    if pooling == "sum":
        return pooled
    if given == "counts":
        total = _total_weight(graph, lengths)
    return graph("Div", pooled, graph("Max", total, _SMALLEST))


def _total_weight(graph: Graph, lengths: str) -> str:
    """Sum of absolute weights of the words that have a code, (n_documents, 1) float32."""
    known = graph.cast(graph("Reshape", graph("Min", lengths, 1), [-1, 1]), np.float32)
    return graph("MatMul", graph("Abs", "counts"), known)


def _offsets(table: CompressedTable) -> NDArray[np.int64]:
    """Give the first column of each codebook."""
    return table.n_codewords * np.arange(table.n_codebooks)


def _codes(graph: Graph, table: CompressedTable, lengths: str, words: Words) -> str:
    """Codes of words, (n, n_codebooks) int64; those beyond a word's own are others' codes."""
    codes, width = table.codes, code_width(table.n_codewords)
    # In the order of rows, and as many more as are read beyond the last one's own.
    in_order = np.append(codes[codes >= 0], np.zeros(table.n_codebooks, codes.dtype))
    first = graph("Gather", graph("CumSum", lengths, 0, exclusive=1), words.rows)
    number = graph("Add", first, np.arange(table.n_codebooks))
    places = graph("Mul", number, width)
    value = _read_bits(graph, pack(in_order, width), places, _n_touched(width))
    return graph("Mod", value, 1 << width)


# ---------------------------------------------------------------------------------------------
# Code features to vectors and to classes


def _vectors(graph: Graph, table: CompressedTable, of_codes: str) -> str:
    """Vectors (n, n_dims) float32 of code features."""
    tensors = table._tensors
    books = _scaled(graph, codebook_steps(tensors), tensors["scales"])
    if "axes" in tensors:
        axes = _scaled(graph, axis_steps(tensors), tensors["axis_scales"])
        books = graph("MatMul", books, axes)
    books = graph("Reshape", books, [-1, table.n_dims])
    mean = graph.cast(tensors["mean"][None], np.float32)
    return graph("MatMul", of_codes, graph("Concat", books, mean, axis=0))


def _scaled(graph: Graph, steps: NDArray[np.int8], scales: NDArray[np.float32]) -> str:
    each = scales.reshape(-1, *[1] * (steps.ndim - 1))
    return graph("Mul", graph.cast(steps, np.float32), each)


def _classes(graph: Graph, frozen: FrozenClassifier, of_codes: str, output: str) -> int:
    """Add scores or probabilities; give the number of columns, 0 for a single one without axis."""
    link, coef, intercept = frozen._description.link, frozen._coef, frozen._intercept
    scores = graph("Gemm", of_codes, coef, intercept, transB=1)
    if output == "scores":
        if len(coef) == 1:
            graph("Squeeze", scores, [1])
        return len(coef) if len(coef) > 1 else 0
    if link == "softmax":
        graph("Softmax", scores)
    else:
        graph("Sigmoid", graph("Mul", scores, np.array([-1, 1], np.float32)))
    return len(frozen.classes)


# ---------------------------------------------------------------------------------------------
# The whole


def model_of(
    table: CompressedTable,
    frozen: FrozenClassifier | None,
    given: str,
    output: str,
    pooling: str,
) -> onnx.ModelProto:
    """Build the model.

    Parameters
    ----------
    table : CompressedTable
        With one codebook at least.
    frozen : FrozenClassifier or None
        The classifier, for scores and probabilities.
    given : {"ids", "rows", "counts"}
    output : {"vectors", "features", "scores", "probabilities"}
    pooling : {"mean", "sum"}
    """
    from onnx import TensorProto, helper

    graph = Graph()
    of_codes = _features(graph, table, given, pooling)
    n_columns = table.n_codebooks * table.n_codewords + 1
    if output == "vectors":
        _vectors(graph, table, of_codes)
        n_columns = table.n_dims
    elif frozen is not None and output != "features":
        n_columns = _classes(graph, frozen, of_codes, output)
    graph.nodes[-1].output[0] = output
    rows: list[str | int | None] = ["n"]
    further: dict[str, list[str | int | None]] = {
        "ids": ["n_words_at_most"],
        "rows": [],
        "counts": [table.n_words],
    }
    kind = TensorProto.FLOAT if given == "counts" else TensorProto.INT64
    result = [*rows, n_columns] if n_columns else rows
    made = helper.make_graph(
        graph.nodes,
        "skadacomp",
        [helper.make_tensor_value_info(given, kind, rows + further[given])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, result)],
        graph.constants,
    )
    return _checked_model(made, frozen)


def _checked_model(graph: onnx.GraphProto, frozen: FrozenClassifier | None) -> onnx.ModelProto:
    from onnx import checker, helper

    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(
        graph,
        opset_imports=opsets,
        ir_version=helper.find_min_ir_version_for(opsets),
        producer_name="skadacomp",
    )
    if frozen is not None:
        helper.set_model_props(model, {"classes": json.dumps(frozen.classes.tolist())})
    checker.check_model(model)
    return model
