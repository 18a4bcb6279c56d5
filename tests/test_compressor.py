"""The estimator: every way of calling it, its budgets, and what it says to bad input."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import CountVectorizer

from skadacomp import AdaptiveCodebookCompressor, CompressedTable, EmbeddingTable, __version__

QUICK = {"max_iter": 3, "random_state": 0}
N_COLUMNS = 8 * 16 + 1  # of code features


def compressor(**parameters):
    return AdaptiveCodebookCompressor(**{**QUICK, **parameters})


@pytest.fixture(scope="module")
def fitted(table, task):
    return compressor().fit(table, *task)


@pytest.fixture(scope="module")
def forms(table, task, documents):
    """The same documents in the four forms."""
    texts, _ = task
    return {
        "text": texts,
        "words": [text.split() for text in texts],
        "ids": documents,
        "counts": CountVectorizer(vocabulary=table.index).transform(texts),
    }


# -- ways of calling fit -----------------------------------------------------------------------


def test_every_call_of_the_contract_gives_the_same(table, task, fitted):
    texts, labels = task
    same = [
        compressor().fit(table, X_task=texts, y_task=labels),
        compressor().fit(embeddings=table, X_task=texts, y_task=labels),
        compressor(embeddings=table).fit(texts, labels),
        compressor(embeddings=table).fit(texts, y=labels),
        compressor(embeddings=table).fit(X_task=texts, y_task=labels),
    ]
    for other in same:
        np.testing.assert_array_equal(other.codes_, fitted.codes_)
        np.testing.assert_array_equal(other.codebooks_, fitted.codebooks_)


@pytest.mark.parametrize("form", ["words", "ids", "counts"])
def test_documents_in_any_form_give_the_same(table, task, forms, fitted, form):
    other = compressor().fit(table, forms[form], task[1])
    np.testing.assert_array_equal(other.codes_, fitted.codes_)
    difference = other.transform(forms[form]) - fitted.transform(forms["text"])
    assert abs(difference).max() == 0


def test_a_table_may_come_as_array_frame_or_path(table, task, documents, fitted, tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(table.vectors, index=list(table.words))
    np.save(tmp_path / "table.npy", table.vectors)
    (tmp_path / "table.words.txt").write_text("\n".join(table.words), encoding="utf-8")
    for source in (frame, tmp_path / "table.npy"):
        np.testing.assert_array_equal(compressor().fit(source, *task).codes_, fitted.codes_)
    array = compressor().fit(np.asarray(table.vectors, np.float64), documents, task[1])
    np.testing.assert_array_equal(array.codes_, fitted.codes_)


@pytest.mark.parametrize(
    "labels",
    [[0, 1, 2], ["a", "b", "c"], [True, False], [-1.0, 1.0], np.array(["x", "y"], object)],
    ids=["int", "str", "bool", "float", "object"],
)
def test_labels_of_any_type(table, task, labels):
    y = np.resize(labels, len(task[0]))
    assert compressor(max_iter=1).fit(table, task[0], y).history_["task_score"].max() <= 1


@pytest.mark.parametrize("n_codewords", [2, 3, 4, 16, 256])
def test_codes_of_one_bit_and_of_several(table, task, n_codewords):
    fit = compressor(n_codewords=n_codewords, code_lengths=(0, 2), max_iter=1).fit(table, *task)
    assert fit.codes_.max() < n_codewords
    assert fit.codebooks_.shape == (2, n_codewords, table.n_dims)


def test_codebooks_of_four_bits(table, task, tmp_path):
    """The same codes, codebooks of half the bytes, near those of 8 bits; budgets know of it."""
    eight = compressor(code_lengths=(0, 4), codebook_bits=8).fit(table, *task)
    four = compressor(code_lengths=(0, 4)).fit(table, *task)
    np.testing.assert_array_equal(four.codes_, eight.codes_)
    assert four.sizes_["codebooks"] < 0.75 * eight.sizes_["codebooks"]
    error = ((four.codebooks_ - eight.codebooks_) ** 2).sum() / (eight.codebooks_**2).sum()
    assert 0 < error < 0.05
    for fitted in (four, eight):
        fitted.compressed_.save(tmp_path / "table")
        kept = CompressedTable.open(tmp_path / "table")
        np.testing.assert_array_equal(kept.codebooks, fitted.codebooks_)
    assert kept.parameters["codebook_bits"] == 8
    tight = compressor(max_bytes=1700).fit(table, *task)
    assert 0.95 * 1700 <= tight.compressed_.file_nbytes <= 1700


@pytest.mark.parametrize("bits", [0, 5, 16, 8.0, "8"])
def test_other_bits_of_codebooks_are_refused(table, bits):
    with pytest.raises(ValueError, match="codebook_bits"):
        compressor(codebook_bits=bits).fit(table)


@pytest.mark.parametrize("parameters", [{}, {"max_bytes": 2200}, {"init": "random"}])
def test_vectors_differ_along_the_principal_components_alone(table, task, parameters):
    """And new ones are encoded by what lies along them."""
    mean = table.vectors.mean(0, dtype=np.float64)
    centred = table.vectors - mean
    axes = np.linalg.eigh(centred.T @ centred)[1][:, -4:]  # (n_dims, 4)
    fitted = compressor(n_components=4, codebook_bits=8, **parameters).fit(table, *task)
    kept = np.flatnonzero(fitted.code_lengths_)
    rebuilt = fitted.compressed_.vectors(kept) - mean
    aside = rebuilt - rebuilt @ axes @ axes.T
    assert (rebuilt**2).sum() > 0
    assert (aside**2).sum() < 1e-3 * (rebuilt**2).sum()  # of rounding
    away = 5 * np.random.default_rng(0).normal(size=table.vectors.shape)
    away -= away @ axes @ axes.T
    near, far = (table.vectors + (part * away).astype(np.float32) for part in (1e-6, 1))
    assert abs(fitted.transform(near) - fitted.transform(far)).max() == 0
    if parameters.get("max_bytes"):
        assert 0.95 * 2200 <= fitted.compressed_.file_nbytes <= 2200


def test_all_principal_components_lose_nothing(table):
    """Of a table without a task: the same error, along other axes."""
    usual, turned = (
        compressor(n_components=n, code_lengths=(8,), codebook_bits=8, max_iter=20).fit(table)
        for n in (None, table.n_dims)
    )
    errors = [
        ((one.compressed_.vectors(np.arange(table.n_words)) - table.vectors) ** 2).sum()
        for one in (usual, turned)
    ]
    assert not np.array_equal(usual.codebooks_, turned.codebooks_)
    np.testing.assert_allclose(*errors, rtol=0.1)


def test_more_principal_components_than_there_are_and_none_are_refused(table, task):
    with pytest.raises(ValueError, match=r"n_components=99 is more than the \d+ dimensions"):
        compressor(n_components=99).fit(table, *task)
    with pytest.raises(ValueError, match="n_components"):
        compressor(n_components=0).fit(table, *task)


def test_without_a_task_it_learns_to_rebuild(table):
    coarse = compressor(code_lengths=(1,)).fit(table)
    fine = compressor(code_lengths=(8,), n_codewords=16).fit(table)
    errors = [
        np.mean((c.inverse_transform(c.transform(table)) - table.vectors) ** 2)
        for c in (coarse, fine)
    ]
    assert errors[1] < errors[0] / 4 < table.vectors.var() / 4
    assert "task_score" not in fine.history_


def test_rows_with_labels_are_samples(table):
    labels = table.vectors[:, 0] > 0
    fit = compressor(max_iter=10).fit(table.vectors, labels)
    assert fit.history_["task_score"].max() > 0.8


@pytest.mark.parametrize("head", ["linear", "convolutional"])
def test_documents_to_validate_on_say_when_to_stop(table, task, head):
    texts, labels = task
    given = {"X_val": texts[:40], "y_val": labels[:40]}
    fitted = compressor(head=head).fit(table, texts[40:], labels[40:], **given)
    again = compressor(head=head, validation_fraction=0.5)
    again.fit(table, texts[40:], labels[40:], **given)  # the fraction plays no part
    np.testing.assert_array_equal(fitted.codes_, again.codes_)
    other = compressor(head=head)
    other.fit(table, texts[40:], labels[40:], X_val=texts[:20], y_val=labels[:20])
    assert not np.array_equal(fitted.history_["loss"], other.history_["loss"])


@pytest.mark.parametrize("form", ["words", "ids"])
def test_the_convolutional_head_reads_text_words_and_ids_alike(table, task, forms, form):
    X, (texts, labels) = forms[form], task
    fitted = compressor(head="convolutional").fit(table, X, labels)
    expected = compressor(head="convolutional").fit(table, texts, labels)
    np.testing.assert_array_equal(fitted.codes_, expected.codes_)
    assert fitted.transform(X).shape[0] == len(texts)


def test_the_convolutional_head_refuses_what_has_no_order(table, task, forms):
    with pytest.raises(ValueError, match="no order of words"):
        compressor(head="convolutional").fit(table, forms["counts"], task[1])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"X_val": ["word1 word2"]}, "y_val is missing"),
        ({"y_val": ["up"]}, "X_val is missing"),
        ({"X_val": ["word1"], "y_val": ["sideways"]}, "the class 'sideways', which y_task"),
        ({"X_val": ["word1"], "y_val": ["up", "up"]}, "2 labels for 1 documents"),
        ({"X_val": ["nothing known"], "y_val": ["up"]}, "X_val holds no word"),
    ],
)
def test_bad_documents_to_validate_on(table, task, given, message):
    with pytest.raises(ValueError, match=message):
        compressor().fit(table, *task, **given)


def test_documents_to_validate_on_need_a_task(table):
    with pytest.raises(ValueError, match="X_val needs a task"):
        compressor().fit(table, X_val=["word1"], y_val=["up"])


def test_same_seed_same_codes_other_seed_other_codes(table, task, fitted):
    np.testing.assert_array_equal(compressor().fit(table, *task).codes_, fitted.codes_)
    assert (compressor(random_state=1).fit(table, *task).codes_ != fitted.codes_).any()


def test_verbose_shows_a_bar(table, task, capsys):
    compressor(verbose=1).fit(table, *task)
    assert "codes" in capsys.readouterr().err
    compressor(verbose=0).fit(table, *task)
    assert capsys.readouterr().err == ""


# -- what fit leaves ---------------------------------------------------------------------------


def test_fitted_attributes_fit_each_other(table, task, fitted):
    sizes = fitted.sizes_
    assert set(sizes) == {"codes", "lengths", "codebooks", "vocabulary"}
    assert fitted.nbytes_ == sum(sizes.values()) - sizes["vocabulary"]
    assert fitted.compression_ratio_ == table.nbytes / fitted.nbytes_
    np.testing.assert_array_equal((fitted.codes_ >= 0).sum(1), fitted.code_lengths_)
    assert set(fitted.code_lengths_) <= {0, 1, 2, 4, 8}
    assert {len(values) for values in fitted.history_.values()} == {fitted.n_iter_}
    assert set(fitted.history_) == {"loss", "task_score", "bits_per_word"}
    assert fitted.n_features_in_ == table.n_dims


def test_a_dropped_word_is_skipped_and_is_the_mean(table, task, fitted):
    lengths = fitted.code_lengths_
    dropped, kept = np.flatnonzero(lengths == 0)[0], np.flatnonzero(lengths)[0]
    shipped = fitted.compressed_
    assert len(shipped) == table.n_words
    assert table.words[dropped] not in shipped
    with pytest.raises(KeyError, match=table.words[dropped]):
        shipped[table.words[dropped]]
    np.testing.assert_array_equal(shipped.vectors([int(dropped)])[0], shipped.mean)
    with_it = fitted.transform([[int(kept), int(dropped)]])
    assert abs(with_it - fitted.transform([[int(kept)]])).max() == 0
    assert fitted.transform([[int(dropped)]]).nnz == 0
    np.testing.assert_allclose(
        fitted.inverse_transform(fitted.transform(table))[dropped], shipped.mean
    )


# -- transform ---------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["mean", "sum"])
@pytest.mark.parametrize("form", ["text", "words", "ids"])
def test_what_ships_pools_documents_as_the_compressor_does(table, task, forms, pooling, form):
    fitted = compressor(pooling=pooling).fit(table, *task)
    documents = forms[form]
    features = fitted.compressed_.code_features(documents, pooling=pooling)
    np.testing.assert_allclose(features, fitted.transform(documents).toarray(), rtol=1e-5)
    vectors = fitted.set_params(output="vectors").transform(documents)
    found = fitted.compressed_.documents(documents, pooling=pooling)
    np.testing.assert_allclose(found, vectors, rtol=1e-4, atol=1e-5)


def test_code_features_hold_all_that_vectors_hold(table, task, fitted):
    np.testing.assert_allclose(
        fitted.inverse_transform(fitted.transform(table)),
        fitted.compressed_.vectors(np.arange(table.n_words)),
        atol=1e-5,
    )
    features = fitted.transform(task[0])
    assert features.dtype == np.float32
    dense = compressor(output="vectors").fit(table, *task).transform(task[0])
    np.testing.assert_allclose(fitted.inverse_transform(features), dense, atol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "sum"])
def test_documents_pool_their_kept_words(table, task, documents, pooling):
    fit = compressor(pooling=pooling).fit(table, *task)
    pooled = fit.inverse_transform(fit.transform(documents))
    for document, vector in zip(documents[:20], pooled, strict=False):
        kept = [i for i in document if fit.code_lengths_[i]]
        words = fit.compressed_.vectors(kept)
        expected = words.mean(0) if pooling == "mean" else words.sum(0)
        np.testing.assert_allclose(vector, expected, atol=1e-4)


def test_a_row_has_its_codes_whatever_its_company(table, fitted):
    whole = fitted.transform(table)
    order = np.random.default_rng(0).permutation(table.n_words)
    assert abs(fitted.transform(table.vectors[order]) - whole[order]).max() == 0
    assert abs(fitted.transform(table.vectors[5:6]) - whole[5]).max() == 0


@given(st.lists(st.floats(-100, 100, width=32), min_size=8, max_size=8))
@settings(max_examples=30, deadline=None)
def test_any_vector_gets_codes_of_the_encoder(fitted, vector):
    features = fitted.transform(np.array([vector], np.float32))
    assert features.shape == (1, N_COLUMNS)
    assert features.sum() == fitted.compressed_.n_codebooks + 1  # new rows get all codes


def test_documents_without_known_words_are_zeros(fitted):
    features = fitted.transform(["", "nothing known here"])
    assert features.nnz == 0
    assert features.shape == (2, N_COLUMNS)


# -- budgets -----------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [1.0, 2.5, 6.0])
@pytest.mark.parametrize("with_task", [True, False])
def test_bits_per_word_are_met(table, task, budget, with_task):
    fit = compressor(bits_per_word=budget).fit(table, *(task if with_task else ()))
    bits = 8 * (fit.sizes_["codes"] + fit.sizes_["lengths"]) / table.n_words
    assert 0.95 * budget <= bits <= budget


@pytest.mark.parametrize("budget", [1400, 1700, 2000])
def test_max_bytes_are_met_on_disk(table, task, budget, tmp_path):
    fit = compressor(max_bytes=budget).fit(table, *task)
    fit.compressed_.save(tmp_path / "words.safetensors")
    assert 0.95 * budget <= (tmp_path / "words.safetensors").stat().st_size <= budget


def test_a_budget_beyond_need_gives_the_longest_codes(table, task):
    fit = compressor(max_bytes=10**6).fit(table, *task)
    assert (fit.code_lengths_ == 8).all()


def test_a_larger_penalty_gives_a_smaller_table(table, task):
    sizes = [compressor(size_penalty=p).fit(table, *task).nbytes_ for p in (0.001, 0.02, 0.4)]
    assert sizes[0] > sizes[1] > sizes[2]


# -- bad input ---------------------------------------------------------------------------------


def _with(table, row, column, value):
    vectors = table.vectors.copy()
    vectors[row, column] = value
    return vectors


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        (lambda t: _with(t, 3, 2, np.nan), "NaN at row 3, column 2"),
        (lambda t: _with(t, 4, 1, np.inf), "infinity at row 4, column 1"),
        (lambda t: t.vectors[:0], r"0 sample\(s\)"),
        (lambda t: t.vectors[0], "Expected 2D array"),
        (lambda t: t.vectors[None], "dim 3"),
    ],
    ids=["NaN", "infinity", "no rows", "one dimension", "three dimensions"],
)
def test_a_bad_table_is_refused(table, embeddings, message):
    with pytest.raises(ValueError, match=message):
        compressor().fit(embeddings(table))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (lambda x, y: (x, None), "y_task is missing"),
        (lambda x, y: (None, y), "X_task is missing"),
        (lambda x, y: (x, y[:-1]), "239 labels for 240 documents"),
        (lambda x, y: ([], []), "X is empty"),
        (lambda x, y: (x, ["same"] * len(x)), "one class only, 'same'"),
        (lambda x, y: ("text", y), "string object received"),
        (lambda x, y: (["unknown"] * len(x), y), "no word of the embedding table"),
        (lambda x, y: (x, np.array([[1, 2, 3]] * len(x))), "'multiclass-multioutput'"),
        (lambda x, y: (x, np.ones(len(x)) * 0.5), "nothing to learn"),
        (lambda x, y: (x, np.array([object()] * len(x))), "Unknown label type: 'unknown'"),
        (lambda x, y: ([[300]] * len(x), y), r"row id 300, which must be in \[0, 300\)"),
    ],
)
def test_a_bad_task_is_refused(table, task, arguments, message):
    X_task, y_task = arguments(*task)
    with pytest.raises(ValueError, match=message):
        compressor().fit(table, X_task=X_task, y_task=y_task)


def test_labels_that_fit_neither_rows_nor_documents(table, task):
    with pytest.raises(ValueError, match="240 entries and the table 300 rows"):
        compressor().fit(table, task[1])


def test_a_document_of_the_wrong_type(table, task):
    with pytest.raises(TypeError, match=r"X\[1\] is of type NoneType"):
        compressor().fit(table, ["word1", None], ["a", "b"])


def test_counts_with_the_wrong_number_of_columns(table, task, forms):
    with pytest.raises(ValueError, match=r"\(240, 299\).*n_words=300"):
        compressor().fit(table, forms["counts"][:, 1:], task[1])


@pytest.mark.parametrize(
    ("code_lengths", "message"),
    [
        ((), "empty"),
        ((-1, 2), "holds -1; the least is 0"),
        ((4, 2), r"as \(2, 4\) does"),
        ((2, 2), "without repeats"),
        ((0,), "drop every word"),
        ((0, 1.5), "whole numbers"),
    ],
)
def test_bad_code_lengths(table, code_lengths, message):
    with pytest.raises(ValueError, match=message):
        compressor(code_lengths=code_lengths).fit(table)


def test_the_file_says_how_it_was_made(table, task, tmp_path):
    given = {"code_lengths": np.array([0, 3]), "learning_rate": np.float32(0.5), "verbose": 1}
    given["checkpoint"] = str(tmp_path / "kept")  # a path, which may be private
    fit = compressor(embeddings=table, tokenizer=str.split, **given).fit(*task)
    fit.compressed_.save(tmp_path / "table")
    assert CompressedTable.open(tmp_path / "table").parameters == {
        "skadacomp": __version__,
        "code_lengths": [0, 3],
        "learning_rate": 0.5,
        "max_iter": 3,
        "random_state": 0,
        "tokenizer": "str.split",
    }


@pytest.mark.parametrize("name", ["max_bytes", "bits_per_word"])
def test_a_budget_too_small_names_the_smallest(table, task, name):
    with pytest.raises(ValueError, match=rf"{name}=.* smallest possible is") as refused:
        compressor(code_lengths=(2, 4), **{name: 1}).fit(table, *task)
    smallest = float(str(refused.value).split("smallest possible is ")[1].split(",")[0])
    # The file tells its budget too, whose digits may take a few bytes more.
    enough = round(smallest * 1.01, 1)
    compressor(code_lengths=(2, 4), **{name: enough}).fit(table, *task)


def test_two_budgets_are_refused(table):
    with pytest.raises(ValueError, match="two budgets"):
        compressor(max_bytes=5000, bits_per_word=4.0).fit(table)


def test_no_table_and_two_tables(table, task):
    with pytest.raises(ValueError, match="There is no embedding table"):
        compressor().fit()
    with pytest.raises(ValueError, match="came twice"):
        compressor(embeddings=table).fit(table, *task)


def test_a_device_that_is_not_there(table):
    with pytest.raises(ValueError, match="device='nowhere'"):
        compressor(device="nowhere").fit(table)


def test_transform_refuses_what_does_not_fit(table, fitted):
    with pytest.raises(NotFittedError):
        compressor().transform(table)
    with pytest.raises(ValueError, match="X has 3 features"):
        fitted.transform(table.vectors[:, :3])
    with pytest.raises(ValueError, match=f"5 columns; what transform gives has {N_COLUMNS}"):
        fitted.inverse_transform(np.zeros((2, 5)))


def test_a_table_without_words_reads_no_text(table, task):
    with pytest.raises(ValueError, match="no words to look them up in"):
        compressor().fit(EmbeddingTable(None, table.vectors), *task)


# -- many documents ----------------------------------------------------------------------------


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr("skadacomp._compressor._BATCH", 7)


@pytest.mark.parametrize("output", ["code_features", "vectors"])
@pytest.mark.parametrize("form", ["text", "words", "ids"])
def test_documents_are_transformed_batch_by_batch(table, task, forms, monkeypatch, output, form):
    fit = compressor(output=output).fit(table, *task)
    whole = fit.transform(forms[form])
    monkeypatch.setattr("skadacomp._compressor._BATCH", 7)
    for documents in (forms[form], iter(forms[form])):
        found = fit.transform(documents)
        assert type(found) is type(whole)
        assert found.shape == whole.shape
        assert abs(found - whole).max() == 0


def test_an_iterator_is_read_no_further_than_its_batch(fitted, monkeypatch, small_batches):
    read, seen = [], []
    pooled = type(fitted)._pooled_features

    def noted(self, X):
        seen.append(len(read))
        return pooled(self, X)

    monkeypatch.setattr(type(fitted), "_pooled_features", noted)
    fitted.transform(read.append(i) or f"word{i}" for i in range(20))
    assert seen == [7, 14, 20]


def test_a_bad_document_of_a_later_batch_is_found(fitted, small_batches):
    texts = ["word1"] * 20
    with pytest.raises(TypeError, match=r"X\[2\] is of type NoneType") as refused:
        fitted.transform([*texts[:16], None, *texts])
    assert refused.value.__notes__ == ["X was read in batches, and in this one X[0] is X[14]."]
    with pytest.raises(ValueError, match="X is empty"):
        fitted.transform(iter([]))


def test_tags_and_pairs_come_in_batches_too(table, small_batches):
    sentences = [[f"word{i}", "unknown", f"word{i + 1}"] for i in range(24)]
    tags = [["A", "B", "A"]] * 24
    tagger = compressor(max_iter=1).fit(table, sentences, tags)
    assert tagger.transform(sentences).shape[0] == 72
    pairs = [(f"word{i}", f"word{i + 1} word{i + 2}") for i in range(24)]
    matcher = compressor(max_iter=1).fit(table, pairs, ["yes", "no"] * 12)
    found = matcher.transform(pairs)
    for row, pair in enumerate(pairs):
        assert abs(matcher.transform([pair]) - found[row]).max() == 0


def test_a_table_of_new_rows_is_encoded_block_by_block(table, fitted, monkeypatch):
    new = table.vectors[::-1] + np.float32(1e-3)
    whole = fitted.transform(new)
    monkeypatch.setattr("skadacomp._encoder._CHUNK", 1)  # the least block is 256 rows
    assert abs(fitted.transform(new) - whole).max() == 0


def test_codebooks_have_eight_bits_where_a_budget_hardly_feels_it(table):
    n_numbers = 8 * 16 * table.n_dims
    for name, unit in (("max_bytes", 1), ("bits_per_word", 8 / table.n_words)):
        for part, bits in ((1 / 20, 8), (1 / 19, 4)):
            budget = {name: n_numbers / part * unit}
            made = AdaptiveCodebookCompressor(**budget)._settings(table, 0, [], trained=False)
            assert made.codebook_bits == bits
            own = AdaptiveCodebookCompressor(codebook_bits=12 - bits, **budget)
            assert own._settings(table, 0, [], trained=False).codebook_bits == 12 - bits


def learned_with(table, heads, **parameters):
    made = AdaptiveCodebookCompressor(**parameters)._settings(table, 0, heads, trained=False)
    assert (made.rate.candidates, made.n_codewords, made.codebook_bits) == ((0, 1, 2, 4, 8), 16, 4)
    return made.size_penalty, made.reconstruction_weight, made.learning_rate


@pytest.mark.parametrize(
    ("heads", "penalty", "weight", "rate"),
    [
        ([], 0.014, 0.1, 3e-3),
        (["linear", "linear"], 0.014, 0.1, 3e-3),
        (["pooled"], 0.005, 0.3, 3e-3),
        (["convolutional"], 0.005, 0.3, 1e-3),
        (["recurrent", "own"], 0.005, 0.3, 1e-3),
        (["linear", "pooled"], 0.005, 0.3, 1e-3),
    ],
)
def test_defaults_that_follow_from_the_heads(table, heads, penalty, weight, rate):
    assert learned_with(table, heads) == (penalty, weight, rate)


def test_what_is_given_wins_over_what_suits_the_head(table):
    found = learned_with(table, ["pooled"], size_penalty=1.0, reconstruction_weight=0)
    assert found == (1.0, 0, 3e-3)
