"""The encoder: text to vectors, over null models and real tokenizers."""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry.run.buckets import buckets
from skerry.run.encoder import Encoder, load_encoder
from skerry.run.pooling import normalized, pooled
from skerry.run.tokens import MOST_CHARACTERS, HashedTokens, VocabularyTokens, sound_text
from skerry.spec.errors import ModelCorruptError, ModelError, ModelKindError, ModelMissingError, SpecError
from skerry.spec.manifest import ModelManifest, Variant

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghij", "hello", "world", "##s", "\ufffd", "?", "é"]


def write_null(folder: Path, body: dict[str, object] | None = None, file: str = "best.null.json") -> Variant:
    (folder / file).write_text(json.dumps({"skerry_null": 1, **(body or {"dimension": 8})}))
    return Variant(name=file.split(".", maxsplit=1)[0], runtime="null", file=file)


def write_tokenizer(folder: Path) -> str:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordPiece({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.enable_padding(length=128, pad_id=0)
    tokenizer.enable_truncation(128)
    tokenizer.save(str(folder / "tokenizer.json"))
    return "tokenizer.json"


def null_manifest(**changes: object) -> ModelManifest:
    return ModelManifest(**{"source": "null", "task": "null", "dimension": 8, **changes})  # type: ignore[arg-type]


@pytest.fixture
def encoder(tmp_path: Path) -> Encoder:
    return load_encoder(tmp_path, null_manifest(), write_null(tmp_path))


class TestBuckets:
    @given(st.lists(st.integers(1, 300)), st.integers(0, 5), st.integers(1, 2000))
    def test_are_a_partition_within_the_limits(self, lengths: list[int], tolerance: int, most: int) -> None:
        groups = buckets(lengths, tolerance=tolerance, most_tokens=most)
        assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
        for group in groups:
            inside = [lengths[index] for index in group]
            assert max(inside) - min(inside) <= tolerance
            assert len(group) == 1 or len(group) * max(inside) <= most


class TestPooling:
    @pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
    def test_leaves_padding_out(self, pooling: str) -> None:
        tokens = np.random.default_rng(0).normal(size=(1, 6, 4)).astype("float32")
        mask = np.array([[1, 1, 1, 1, 0, 0]])
        assert np.allclose(pooled(tokens, mask, pooling), pooled(tokens[:, :4], None, pooling), atol=1e-6)  # type: ignore[arg-type]

    def test_normalizing_leaves_zeros(self) -> None:
        vectors = normalized(np.array([[3.0, 4.0], [0.0, 0.0]], dtype="float32"))
        assert np.allclose(vectors, [[0.6, 0.8], [0, 0]])


class TestTokens:
    def test_file_padding_and_truncation_are_replaced(self, tmp_path: Path) -> None:
        tokens = VocabularyTokens(tmp_path / write_tokenizer(tmp_path), 5)
        assert list(tokens.one("hello")) == [2, 14, 3]
        assert len(tokens.one("hello " * 50)) == 5

    @settings(max_examples=60)
    @given(st.lists(st.text(st.characters(exclude_categories=[]), max_size=40), max_size=6))
    def test_many_are_as_one_by_one_for_any_text(
        self, tmp_path_factory: pytest.TempPathFactory, texts: list[str]
    ) -> None:
        folder = tmp_path_factory.mktemp("tokens")
        for tokens in (VocabularyTokens(folder / write_tokenizer(folder), 16), HashedTokens(16)):
            assert [list(row) for row in tokens.many(texts)] == [list(tokens.one(text)) for text in texts]
            assert all(1 <= len(row) <= 16 for row in tokens.many(texts))

    @pytest.mark.parametrize("text", ["hello world " * 1000, "x" * 101 + " hello" * 3000, " " * 20_000 + "hello"])
    def test_a_cut_text_reads_as_the_whole(self, tmp_path: Path, text: str) -> None:
        from tokenizers import Tokenizer

        whole = Tokenizer.from_file(str(tmp_path / write_tokenizer(tmp_path)))
        whole.no_padding()
        whole.enable_truncation(32)
        tokens = VocabularyTokens(tmp_path / "tokenizer.json", 32)
        assert list(tokens.one(text)) == whole.encode(text).ids
        assert list(tokens.many([text, "a"])[0]) == whole.encode(text).ids

    def test_a_text_of_ten_megabytes_is_read_in_part(self, tmp_path: Path) -> None:
        tokens = VocabularyTokens(tmp_path / write_tokenizer(tmp_path), 32)
        start = "hello " * 11_000
        assert len(start) > MOST_CHARACTERS
        assert tokens.one(start + "a" * 10_000_000) == tokens.one(start)
        assert len(HashedTokens(32).one("hello " * 2_000_000)) == 32

    def test_a_limit_only_shortens(self, tmp_path: Path) -> None:
        text = "hello world " * 300
        vocabulary = functools.partial(VocabularyTokens, tmp_path / write_tokenizer(tmp_path))
        for kind in (vocabulary, HashedTokens):
            tokens = kind(16)
            tokens.limit(sys.maxsize)
            assert tokens.one(text) == kind(16).one(text)
            tokens.limit(8)
            assert tokens.many([text, "hello"]) == kind(8).many([text, "hello"])

    def test_surrogates(self) -> None:
        assert sound_text("a\ud83d\ude00b\udcffc") == "a😀b\ufffdc"

    def test_missing_and_damaged_files(self, tmp_path: Path) -> None:
        with pytest.raises(ModelMissingError, match="skerry build"):
            VocabularyTokens(tmp_path / "no.json", 8)
        (tmp_path / "bad.json").write_text('{"model": 1}')
        with pytest.raises(ModelCorruptError, match="damaged"):
            VocabularyTokens(tmp_path / "bad.json", 8)


class TestEmbed:
    def test_order_shape_and_length(self, encoder: Encoder) -> None:
        texts = ["one two three", "one", "", "\udcff", "one two", "one"]
        vectors = encoder.embed(texts)
        assert vectors.shape == (6, 8)
        assert vectors.dtype == np.float32
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
        assert np.array_equal(vectors[1], vectors[5])
        assert not np.allclose(vectors[0], vectors[1])

    @settings(max_examples=50)
    @given(st.lists(st.text(), max_size=12), st.sampled_from(["mean", "cls", "max"]), st.booleans())
    def test_a_batch_is_its_singles(
        self, tmp_path_factory: pytest.TempPathFactory, texts: list[str], pooling: str, normalize: bool
    ) -> None:
        folder = tmp_path_factory.mktemp("model")
        manifest = null_manifest(pooling=pooling, normalize=normalize, tokenizer=write_tokenizer(folder))
        encoder = load_encoder(folder, manifest, write_null(folder))
        vectors = encoder.embed(texts)
        assert vectors.shape == (len(texts), 8)
        for text, vector in zip(texts, vectors, strict=True):
            assert np.allclose(encoder.embed([text])[0], vector, atol=1e-5)

    def test_more_texts_than_a_batch_holds(self, encoder: Encoder) -> None:
        texts = [f"word {number}" for number in range(3000)]
        assert np.allclose(encoder.embed(texts)[::500], [encoder.embed([text])[0] for text in texts[::500]], atol=1e-5)

    def test_fixed_shapes_are_filled(self, tmp_path: Path) -> None:
        tensors = {
            "inputs": [
                {"name": "input_ids", "dtype": "int32", "shape": [1, 4]},
                {"name": "attention_mask", "dtype": "int32", "shape": [1, 4]},
                {"name": "token_type_ids", "dtype": "int32", "shape": [1, 4]},
            ],
            "outputs": [{"name": "hidden", "dtype": "float32", "shape": [1, 4, 8]}],
        }
        encoder = load_encoder(tmp_path, null_manifest(), write_null(tmp_path, tensors))
        encoder.warm_up()
        assert encoder.embed(["one", "a b c d e f g"]).shape == (2, 8)
        assert [array.shape for array in encoder.infer(["one", "a b c d e f g"])["hidden"]] == [(1, 8), (4, 8)]

    def test_a_model_that_pools_by_itself(self, tmp_path: Path) -> None:
        tensors = {
            "inputs": [{"name": "input_ids", "dtype": "int64", "shape": ["batch", "tokens"]}],
            "outputs": [{"name": "logits", "dtype": "float32", "shape": ["batch", 3]}],
        }
        variant = write_null(tmp_path, tensors)
        encoder = load_encoder(tmp_path, null_manifest(dimension=3, pooling="none"), variant)
        assert encoder.embed(["a", "b c"]).shape == (2, 3)
        with pytest.raises(ModelKindError, match="pooling 'mean'"):
            load_encoder(tmp_path, null_manifest(dimension=3), variant)
        beside = load_encoder(tmp_path, null_manifest(dimension=3), msgspec.structs.replace(variant, pooled=True))
        assert np.allclose(normalized(beside.embed(["a", "b c"])), encoder.embed(["a", "b c"]))

    def test_raw_outputs_are_cut_to_length(self, encoder: Encoder) -> None:
        texts = ["one two three", "one", "one two"]
        raw = encoder.infer(texts)["last_hidden_state"]
        assert [array.shape for array in raw] == [(3, 8), (1, 8), (2, 8)]
        assert np.array_equal(raw[1], encoder.infer(["one"])["last_hidden_state"][0])
        assert encoder.infer([]) == {"last_hidden_state": []}

    def test_warm_up_and_close(self, encoder: Encoder) -> None:
        encoder.warm_up()
        encoder.close()
        encoder.close()
        with pytest.raises(ModelError, match="closed"):
            encoder.embed(["x"])


class TestLoading:
    def test_wrong_dimension(self, tmp_path: Path) -> None:
        with pytest.raises(ModelKindError, match="8 numbers"):
            load_encoder(tmp_path, null_manifest(dimension=9), write_null(tmp_path))

    def test_inputs_that_text_does_not_give(self, tmp_path: Path) -> None:
        tensors = {
            "inputs": [{"name": "pixels", "dtype": "float32", "shape": ["batch", 3]}],
            "outputs": [{"name": "out", "dtype": "float32", "shape": ["batch", 8]}],
        }
        with pytest.raises(ModelKindError, match="pixels"):
            load_encoder(tmp_path, null_manifest(), write_null(tmp_path, tensors))

    def test_files_are_checked(self, tmp_path: Path) -> None:
        variant = write_null(tmp_path)
        with pytest.raises(ModelMissingError, match="skerry build"):
            load_encoder(tmp_path, null_manifest(), Variant(name="x", runtime="null", file="none.json"))
        with pytest.raises(ModelCorruptError, match="digest"):
            load_encoder(
                tmp_path, null_manifest(),
                Variant(name="x", runtime="null", file=variant.file, digest="sha256:" + "0" * 64),
            )  # fmt: skip
        with pytest.raises(SpecError, match="nul"):
            load_encoder(tmp_path, null_manifest(), Variant(name="x", runtime="nul", file=variant.file))
