from pathlib import Path

import numpy as np
import pytest
from retrieval_world import reference_vector, write_tiny_bert

from mainstay.retrieval import EmbedderMissing, MiniLmEmbedder, convert

TEXTS = ["leave days", "dogs", "a dog park", "refund money", "leave " * 200, "a " * 400, "", "refund"]


def test_the_converted_graph_computes_the_encoder(tmp_path: Path) -> None:
    tensors = write_tiny_bert(tmp_path / "minilm")
    vector = MiniLmEmbedder.load(tmp_path).embed(["a dog park"])[0]
    expected = reference_vector(tensors, [2, 11, 6, 7, 3])
    assert float(vector @ expected) > 0.995  # int8 against float64


def test_a_text_has_the_same_vector_in_any_batch(tiny_models_dir: Path) -> None:
    embedder = MiniLmEmbedder.load(tiny_models_dir)
    together = embedder.embed(TEXTS)
    alone = np.concatenate([embedder.embed([text]) for text in TEXTS])
    assert np.array_equal(together, alone)
    assert np.allclose(np.linalg.norm(together, axis=1), 1)


def test_converting_leaves_one_model_file_and_can_be_repeated(tiny_models_dir: Path) -> None:
    first = convert(tiny_models_dir)
    made = first.read_bytes()
    assert convert(tiny_models_dir).read_bytes() == made
    assert sorted(path.name for path in first.parent.iterdir()) == [
        "config.json",
        "minilm-row8.onnx",
        "tokenizer.json",
    ]


def test_a_missing_model_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(EmbedderMissing) as caught:
        MiniLmEmbedder.load(tmp_path)
    assert caught.value.fix is not None
    assert "mainstay models add minilm" in caught.value.fix


def test_the_fingerprint_tells_models_apart(tiny_models_dir: Path, tmp_path: Path) -> None:
    first = MiniLmEmbedder.load(tiny_models_dir)
    again = MiniLmEmbedder.load(tiny_models_dir)
    onnx = (tiny_models_dir / "minilm" / "minilm-row8.onnx").read_bytes()
    other_words = (tiny_models_dir / "minilm" / "tokenizer.json").read_bytes().replace(b"refund", b"return")
    assert first.fingerprint == again.fingerprint
    assert MiniLmEmbedder(onnx, other_words).fingerprint != first.fingerprint


def test_tokens_are_counted_in_whole_texts(tiny_models_dir: Path) -> None:
    embedder = MiniLmEmbedder.load(tiny_models_dir)
    assert embedder.count_tokens(["leave days"]) == 4
    assert embedder.count_tokens(["leave " * 400, "dogs"]) == 402 + 4
    assert embedder.embed([]).shape == (0, 384)


@pytest.mark.model
def test_the_real_model_puts_meaning_before_words(models_dir: Path) -> None:
    embedder = MiniLmEmbedder.load(models_dir)
    question, answer, other = embedder.embed(
        [
            "How can I get my money back?",
            "Refunds are issued within 14 days.",
            "The money museum opens at nine.",
        ]
    )
    assert float(question @ answer) > float(question @ other)
    texts = ["one", "two words", "日本語のテキスト", "a longer text about refunds and returns " * 20]
    assert np.array_equal(embedder.embed(texts), np.concatenate([embedder.embed([text]) for text in texts]))
