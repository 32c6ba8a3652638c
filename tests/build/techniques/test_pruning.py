"""What pruning and distilling do to small real models, beyond the contract."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.build.artifact import Artifact
from skerry.build.technique import Workbench
from skerry.build.techniques import distill
from skerry.build.techniques.distill import Distill
from skerry.build.techniques.export_onnx import ExportOnnx
from skerry.build.techniques.graph import Graph
from skerry.build.techniques.prune_ffn import PruneFfn
from skerry.build.techniques.prune_heads import PruneHeads, attentions
from skerry.build.techniques.prune_layers import PruneLayers
from skerry.build.techniques.subjects import Classes
from skerry.build.techniques.transformer import Transformer
from skerry.build.techniques.trim_vocabulary import TrimVocabulary
from skerry.build.techniques.vocabulary import Vocabulary
from skerry.run.tokens import VocabularyTokens
from skerry.spec.errors import ModelKindError, SpecError
from skerry.testing.techniques import vectors

from ..conftest import write_model
from .conftest import LINES, Family, folder_artifact

SHORT = {
    "steps": 100, "check_every": 20, "batch": 256, "rate": 0.005, "patience": 9, "further": 0, "embedding": "learned",
    "compute": "fp32",
}  # fmt: skip


def config_of(artifact: Artifact) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((artifact.folder / "config.json").read_text())
    return found


def closeness(one: Artifact, other: Artifact) -> float:
    """Return the mean cosine of vectors, or the share of texts of which two classifiers name the same class."""
    answers = vectors(one, LINES), vectors(other, LINES)
    if one.task == "classification":
        return float((answers[0].argmax(axis=1) == answers[1].argmax(axis=1)).mean())
    return float((answers[0] * answers[1]).sum(axis=1).mean())


def table_of(artifact: Artifact) -> Any:
    return Transformer(artifact).model.get_input_embeddings().weight.detach().numpy()


class TestLayers:
    def test_named_layers_stay(self, transformer: Artifact, workbench: Workbench, tmp_path: Path) -> None:
        made = PruneLayers().apply(transformer, {"keep": [0, 2]}, workbench, tmp_path)
        assert config_of(made)["num_hidden_layers"] == 2
        assert made.size < transformer.size

    def test_all_layers_are_the_same_model(self, transformer: Artifact, workbench: Workbench, tmp_path: Path) -> None:
        made = PruneLayers().apply(transformer, {"keep": [0, 1, 2]}, workbench, tmp_path)
        np.testing.assert_allclose(vectors(made, LINES), vectors(transformer, LINES), atol=1e-6)

    @pytest.mark.parametrize("keep", [[2, 0], [0, 3], [-1, 1], [1, 1]])
    def test_layers_that_are_not_there(
        self, transformer: Artifact, workbench: Workbench, tmp_path: Path, keep: list[int]
    ) -> None:
        with pytest.raises(ModelKindError, match="no layers"):
            PruneLayers().apply(transformer, {"keep": keep}, workbench, tmp_path)

    def test_shared_layers_are_told(self, family: Family, workbench: Workbench, tmp_path: Path) -> None:
        with pytest.raises(ModelKindError, match="cannot be told apart"):
            PruneLayers().apply(family("albert"), {}, workbench, tmp_path)


class TestFeedforwards:
    @pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta", "electra", "mpnet"])
    def test_families(self, kind: str, family: Family, workbench: Workbench, tmp_path: Path) -> None:
        model = family(kind)
        made = PruneFfn().apply(model, {"keep": 0.5}, workbench, tmp_path)
        config = config_of(made)
        assert config.get("intermediate_size", config.get("hidden_dim")) == 24
        assert closeness(model, made) > 0.9

    def test_all_neurons_are_the_same_model(self, transformer: Artifact, workbench: Workbench, tmp_path: Path) -> None:
        made = PruneFfn().apply(transformer, {"keep": 1.0}, workbench, tmp_path)
        np.testing.assert_allclose(vectors(made, LINES), vectors(transformer, LINES), atol=1e-6)


class TestHeads:
    @pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta", "mpnet"])
    def test_families(self, kind: str, family: Family, workbench: Workbench, tmp_path: Path) -> None:
        (tmp_path / "onnx").mkdir()
        (tmp_path / "made").mkdir()
        base = ExportOnnx().apply(family(kind), {}, workbench, tmp_path / "onnx")
        if kind == "mpnet":  # its heads have a bias of positions each
            with pytest.raises(ModelKindError, match="for each head"):
                PruneHeads().apply(base, {"keep": 0.5}, workbench, tmp_path / "made")
            return
        made = PruneHeads().apply(base, {"keep": 0.5}, workbench, tmp_path / "made")
        assert made.size < base.size
        assert closeness(base, made) > 0.9

    def test_all_heads_are_the_same_model(self, exported: Artifact, workbench: Workbench, tmp_path: Path) -> None:
        assert len(attentions(Graph(exported.path))) == 3
        made = PruneHeads().apply(exported, {"keep": 1.0}, workbench, tmp_path)
        np.testing.assert_allclose(vectors(made, LINES), vectors(exported, LINES), atol=1e-5)


class TestVocabulary:
    def test_known_texts_are_read_as_before(self, transformer: Artifact, workbench: Workbench, tmp_path: Path) -> None:
        made = TrimVocabulary().apply(transformer, {"common": 0}, workbench, tmp_path)
        np.testing.assert_allclose(vectors(made, LINES), vectors(transformer, LINES), atol=1e-6)
        assert made.tokenizer.parent == tmp_path

    @given(st.text(max_size=40))
    def test_every_word_can_still_be_spelled(self, wordy: tuple[Path, Path], text: str) -> None:
        before, after = (VocabularyTokens(path, 128) for path in wordy)
        unknown = [Vocabulary(path).pieces for path in wordy]
        counts = [
            sum(pieces.get(number) == "[UNK]" for number in tokens.one(text))
            for pieces, tokens in zip(unknown, (before, after), strict=True)
        ]
        assert counts[0] == counts[1]

    def test_coverage_is_told(self, transformer: Artifact, workbench: Workbench, tmp_path: Path) -> None:
        TrimVocabulary().apply(transformer, {"common": 0}, workbench, tmp_path)
        told = json.loads((tmp_path / "coverage.json").read_text())
        assert told["pieces"] <= told["pieces_before"]
        assert 0 <= told["held_out_texts"] <= told["held_out_pieces"] <= 1

    def test_pieces_of_a_unigram_model_are_cut_too(self, tmp_path: Path) -> None:
        from tokenizers import Tokenizer, models, pre_tokenizers

        pieces = [("<unk>", 0.0), ("▁hello", -1.0), ("lo", -2.0), *((one, -5.0) for one in "▁helo")]
        tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.add_special_tokens(["<unk>"])
        tokenizer.save(str(tmp_path / "before.json"))
        vocabulary = Vocabulary(tmp_path / "before.json")
        vocabulary.cut(vocabulary.fallback(), tmp_path / "after.json")
        after = Tokenizer.from_file(str(tmp_path / "after.json"))
        assert after.get_vocab_size() == 6
        assert after.encode("hello").tokens == ["▁", "h", "e", "l", "l", "o"]
        assert after.encode("x").ids[-1] == 0

    def test_byte_pairs_are_told(self, transformer: Artifact, workbench: Workbench, tmp_path: Path) -> None:
        from tokenizers import Tokenizer, models

        path = tmp_path / "bpe.json"
        Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")])).save(str(path))
        with pytest.raises(ModelKindError, match="BPE cannot be cut"):
            TrimVocabulary().apply(
                msgspec.structs.replace(transformer, tokenizer=path), {}, workbench, tmp_path / "target"
            )


@pytest.fixture(scope="module")
def wordy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A vocabulary with words, and the same without them."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,é"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *(f"##{one}" for one in letters), "hello", "##llo", "good"]
    tokenizer = Tokenizer(models.WordPiece({one: place for place, one in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    folder = tmp_path_factory.mktemp("wordy")
    tokenizer.save(str(folder / "before.json"))
    vocabulary = Vocabulary(folder / "before.json")
    numbers = vocabulary.cut(vocabulary.fallback(), folder / "after.json")
    assert len(numbers) == len(pieces) - 3
    return folder / "before.json", folder / "after.json"


@pytest.fixture(scope="module", params=["vectors", "classes"])
def teacher(request: pytest.FixtureRequest, family: Family, classifier: Artifact) -> Artifact:
    """A model whose layers do much, so that there is something to learn."""
    return classifier if request.param == "classes" else family("bert", num_hidden_layers=3, initializer_range=0.3)


@pytest.fixture(scope="module")
def lessons(workbench: Workbench, teacher: Artifact) -> Workbench:
    return msgspec.structs.replace(workbench, embed=lambda texts: vectors(teacher, list(texts)))


@pytest.fixture(scope="module")
def student(teacher: Artifact, workbench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return PruneLayers().apply(teacher, {"keep": [0]}, workbench, tmp_path_factory.mktemp("student"))


class TestDistill:
    def test_the_student_comes_nearer(
        self, teacher: Artifact, student: Artifact, lessons: Workbench, tmp_path: Path
    ) -> None:
        made = Distill().apply(student, SHORT, lessons, tmp_path)
        assert closeness(teacher, made) > closeness(teacher, student) + 0.01

    def test_an_interrupted_training_goes_on_and_ends_the_same(
        self, student: Artifact, lessons: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("whole", "broken", "resumed"):
            (tmp_path / name).mkdir()
        whole = Distill().apply(student, SHORT, lessons, tmp_path / "whole")
        learn, taken = distill._Training._learn, []

        def interrupted(self: Any) -> None:
            taken.append(self._step)
            if len(taken) == 25:
                raise KeyboardInterrupt
            learn(self)

        monkeypatch.setattr(distill._Training, "_learn", interrupted)
        with pytest.raises(KeyboardInterrupt):
            Distill().apply(student, SHORT, lessons, tmp_path / "broken")
        assert not any((tmp_path / "broken").iterdir())
        resumed = Distill().apply(student, SHORT, lessons, tmp_path / "resumed")
        assert taken[25] == 20  # the step of the last checkpoint
        assert {path.name for path in tmp_path.iterdir()} == {"whole", "broken", "resumed"}
        np.testing.assert_allclose(vectors(whole, LINES), vectors(resumed, LINES), atol=1e-6)

    def test_a_teacher_whose_weights_are_there_shows_its_tokens(
        self, teacher: Artifact, student: Artifact, lessons: Workbench, tmp_path: Path
    ) -> None:
        seeing = msgspec.structs.replace(lessons, teacher=teacher)
        settings = {**SHORT, "steps": 240, "vectors": 0.0}  # there is nothing to learn from but the tokens
        made = Distill().apply(student, settings, seeing, tmp_path)
        assert closeness(teacher, made) > closeness(teacher, student) + 0.01

    def test_a_table_is_let_be_or_rounded(self, student: Artifact, lessons: Workbench, tmp_path: Path) -> None:
        tables = {}
        for embedding in ("frozen", "int4"):
            (tmp_path / embedding).mkdir()
            settings = {**SHORT, "steps": 20, "embedding": embedding}
            tables[embedding] = table_of(Distill().apply(student, settings, lessons, tmp_path / embedding))
        np.testing.assert_array_equal(tables["frozen"], table_of(student))
        rows = tables["int4"].reshape(-1, 32)
        rows = rows[rows.any(axis=1)]  # that of the padding is nought
        steps = rows / np.abs(rows).max(axis=1, keepdims=True) * 7
        np.testing.assert_allclose(steps, steps.round(), atol=0.01)

    def test_sentences_of_the_machine_are_read_once(
        self, student: Artifact, lessons: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = []

        def found(count: int, *, forbidden: set[str]) -> tuple[str, ...]:
            asked.append(forbidden)
            return tuple(f"a sentence of this machine {number}" for number in range(count))

        monkeypatch.setattr("skerry.build.techniques.lessons.machine_texts", found)
        held_out = msgspec.structs.replace(lessons, forbidden=frozenset({"a held out text"}))
        target = tmp_path / "target"
        target.mkdir()
        settings = {**SHORT, "steps": 20, "further": 50}
        monkeypatch.setattr(distill._Training, "run", lambda self: self._write())
        training = distill._Training(student, distill.DistillSettings(further=50), held_out, tmp_path / "place")
        distill._Training(student, distill.DistillSettings(further=50), held_out, tmp_path / "place")
        assert len(asked) == 1 and "a held out text" in asked[0]
        learned = {number for batch in training._lessons.batches(0, 512) for number in batch}
        assert not learned & set(training._lessons.held_out)
        assert Distill().apply(student, settings, held_out, target).size

    def test_a_damaged_checkpoint_is_begun_anew(self, student: Artifact, lessons: Workbench, tmp_path: Path) -> None:
        target = tmp_path / "target"
        target.mkdir()
        place = distill._place(student, SHORT, lessons, target)
        place.mkdir()
        (place / "checkpoint.pt").write_bytes(b"cut short")
        assert Distill().apply(student, SHORT, lessons, target).size

    def test_the_deadline_is_kept(self, student: Artifact, lessons: Workbench, tmp_path: Path) -> None:
        late = msgspec.structs.replace(lessons, deadline=time.monotonic())
        made = Distill().apply(student, {**SHORT, "steps": 1_000_000}, late, tmp_path)
        np.testing.assert_allclose(vectors(made, LINES), vectors(student, LINES), atol=1e-6)

    def test_a_model_like_its_teacher_has_nothing_to_learn(self, teacher: Artifact, lessons: Workbench) -> None:
        assert Distill().candidates(teacher, lessons) == []

    def test_what_is_missing_is_told(self, student: Artifact, lessons: Workbench, tmp_path: Path) -> None:
        with pytest.raises(ModelKindError, match="teacher"):
            Distill().apply(student, SHORT, msgspec.structs.replace(lessons, embed=None), tmp_path)
        with pytest.raises(SpecError, match="too few"):
            Distill().apply(student, SHORT, msgspec.structs.replace(lessons, texts=LINES[:5]), tmp_path)
        other = msgspec.structs.replace(lessons, embed=lambda texts: np.ones((len(texts), 8), dtype=np.float32))
        with pytest.raises(
            ModelKindError, match=r"(32 numbers and its teacher|3 classes apart and its teacher gives) 8"
        ):
            Distill().apply(student, SHORT, other, tmp_path)

    def test_a_classifier_with_smaller_states_learns_the_logits_alone(
        self, classifier: Artifact, workbench: Workbench, tmp_path: Path
    ) -> None:
        folder = write_model(
            tmp_path / "small", architecture="Classifier", hidden_size=16, num_labels=3, initializer_range=0.3
        )
        small = msgspec.structs.replace(classifier, folder=folder)
        seeing = msgspec.structs.replace(
            workbench, embed=lambda texts: vectors(classifier, list(texts)), teacher=classifier
        )
        (tmp_path / "target").mkdir()
        made = Distill().apply(small, {**SHORT, "compute": "bf16"}, seeing, tmp_path / "target")
        assert closeness(classifier, made) > closeness(classifier, small) + 0.01

    def test_softened_logits_are_compared_as_hinton_does(self) -> None:
        torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'skerry[build]'")
        logits = np.random.default_rng(3).normal(size=(2, 5, 4))
        shares = np.exp(logits / 2) / np.exp(logits / 2).sum(axis=2, keepdims=True)
        wanted = 4 * (shares[1] * np.log(shares[1] / shares[0])).sum(axis=1).mean()
        found = Classes().loss(torch, *(torch.from_numpy(one) for one in logits))
        np.testing.assert_allclose(float(found), wanted)

    def test_one_number_is_no_class(self, workbench: Workbench, tmp_path: Path) -> None:
        folder = write_model(tmp_path / "score", architecture="Classifier", num_labels=1)
        score = folder_artifact(folder, task="classification", pooling="none", normalize=False, dimension=1)
        scores = msgspec.structs.replace(workbench, embed=lambda texts: vectors(score, list(texts)))
        assert Distill().candidates(score, scores) == []
        with pytest.raises(ModelKindError, match="one number"):
            Distill().apply(score, SHORT, scores, tmp_path)
