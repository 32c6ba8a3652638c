"""Word pieces: the numbers are those of the package tokenizers, for any text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.run.tokens import VocabularyTokens, sound_text
from skerry.run.wordpieces import Vocabulary, read_word_pieces

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[MASK]2"]
LETTERS = "abcdeé中ßİ😀"
PIECES = [*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS), "##ab", "abc", "##cde", "deed", ".", "-", "e"]
WORDS = list(dict.fromkeys(PIECES))

texts = st.lists(
    st.one_of(
        st.sampled_from([*SPECIAL, "[", "]", " ", "\t", "\x00", "É", "ABC", "İ", "x", "abab", "deedcde", "中中"]),
        st.text(max_size=3),
    ),
    max_size=30,
).map("".join)  # fmt: skip


def written(folder: Path, **changes: Any) -> Path:
    """Write a tokenizer like BERT's, with parts of the file changed."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    numbers = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordPiece(numbers, unk_token="[UNK]", max_input_chars_per_word=20))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", numbers["[CLS]"]), ("[SEP]", numbers["[SEP]"])]
    )
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.enable_padding(length=64, pad_id=0)
    path = folder / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(tokenizer.to_str()), **changes}))
    return path


def by_the_package(path: Path, most: int) -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.enable_truncation(most)
    return lambda text: tokenizer.encode(sound_text(text)).ids


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    pytest.importorskip("tokenizers")
    yield written(tmp_path_factory.mktemp("tokenizer"))


class TestWordPieces:
    @given(text=texts, most=st.sampled_from([2, 3, 5, 64]))
    def test_numbers_are_the_packages(self, tokenizer_file: Path, text: str, most: int) -> None:
        assert read_word_pieces(tokenizer_file) is not None
        tokens = VocabularyTokens(tokenizer_file, most)
        expected = by_the_package(tokenizer_file, most)(text)
        assert list(tokens.one(text)) == expected
        assert [list(ids) for ids in tokens.many([text, "", text])] == [expected, tokens.one(""), expected]

    def test_words_that_were_met_give_the_same_again(self, tokenizer_file: Path) -> None:
        tokens, package = VocabularyTokens(tokenizer_file, 16), by_the_package(tokenizer_file, 16)
        many = [f"abc deed {'abcde'[number % 5]}{'ab' * (number % 9)} {number}" for number in range(3000)]
        for text in many * 2:
            assert list(tokens.one(text)) == package(text)

    def test_lone_surrogates_are_replaced(self, tokenizer_file: Path) -> None:
        tokens = VocabularyTokens(tokenizer_file, 16)
        assert list(tokens.one("ab\ud800c")) == list(tokens.one("ab\ufffdc"))

    @pytest.mark.parametrize(
        "changes",
        [
            {"pre_tokenizer": None},
            {"post_processor": None},
            {"normalizer": None},
            {"added_tokens": []},
            {"padding": None},
            {"added_tokens": [
                {"id": 4, "content": "[MASK]", "single_word": False, "lstrip": True, "rstrip": False,
                 "normalized": False, "special": True},
            ]},
        ],
    )  # fmt: skip
    def test_other_files_give_the_packages_numbers_too(self, tmp_path: Path, changes: dict[str, Any]) -> None:
        pytest.importorskip("tokenizers")
        path = written(tmp_path, **changes)
        tokens, package = VocabularyTokens(path, 12), by_the_package(path, 12)
        for text in ("abc de [MASK] ABC", "deed  [MASK]2x", "É中 " * 20):
            assert list(tokens.one(text)) == package(text)

    def test_another_kind_of_model_is_left_to_the_package(self, tmp_path: Path) -> None:
        tokenizers = pytest.importorskip("tokenizers")
        numbers = {"[UNK]": 0, "a": 1, "b": 2, "ab": 3}
        tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(numbers, [("a", "b")], unk_token="[UNK]"))
        tokenizer.save(str(tmp_path / "tokenizer.json"))
        assert read_word_pieces(tmp_path / "tokenizer.json") is None
        assert list(VocabularyTokens(tmp_path / "tokenizer.json", 8).one("abab")) == [3, 3]

    def test_a_damaged_file_is_none_of_ours(self, tmp_path: Path) -> None:
        (tmp_path / "tokenizer.json").write_text('{"model": {"type": "WordPiece", "vocab": {"a": ')
        assert read_word_pieces(tmp_path / "tokenizer.json") is None


class TestVocabulary:
    @given(st.lists(st.text(alphabet=st.characters(codec="utf-8"), min_size=1), unique=True), st.text())
    def test_finds_what_is_there_and_nothing_else(self, pieces: list[str], other: str) -> None:
        vocabulary = Vocabulary(pieces)
        assert [vocabulary.find(piece) for piece in pieces] == list(range(len(pieces)))
        if sound_text(other) == other and other not in pieces:
            assert vocabulary.find(other) is None
