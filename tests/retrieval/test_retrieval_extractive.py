from pathlib import Path

import pytest
from retrieval_world import BagOfWordsEmbedder

from mainstay.models import SentenceSelector, SourcePassage
from mainstay.retrieval import ExtractiveSelector, MiniLmEmbedder
from mainstay.retrieval.extractive import candidates

PASSAGES = (
    SourcePassage(
        1,
        "Full-time employees receive 25 days of annual leave per year. "
        "Leave must be requested 14 days in advance. Who approves leave? Your manager does.",
    ),
    SourcePassage(2, "Refunds are issued within 14 days of a return. Gift cards cannot be refunded."),
)


def test_the_sentence_that_answers_is_copied_with_its_passage(embedder: BagOfWordsEmbedder) -> None:
    selector: SentenceSelector = ExtractiveSelector(embedder)
    chosen = selector("How many days of annual leave do employees receive per year?", PASSAGES)
    assert chosen[0] == ("Full-time employees receive 25 days of annual leave per year.", 1)
    assert len(chosen) <= 3
    assert all(sentence in PASSAGES[number - 1].text for sentence, number in chosen)


def test_a_question_in_the_text_is_not_its_own_answer(embedder: BagOfWordsEmbedder) -> None:
    chosen = ExtractiveSelector(embedder)("Who approves leave?", PASSAGES)
    assert chosen[0] == ("Your manager does.", 1)


@pytest.mark.parametrize("question", ["Which enzyme repairs oxidised guanine?", "", "   ", "???"])
def test_no_sentence_is_chosen_when_none_answers(embedder: BagOfWordsEmbedder, question: str) -> None:
    assert ExtractiveSelector(embedder)(question, PASSAGES) == ()


def test_no_passages_give_no_answer(embedder: BagOfWordsEmbedder) -> None:
    assert ExtractiveSelector(embedder)("annual leave?", ()) == ()
    assert ExtractiveSelector(embedder)("annual leave?", (SourcePassage(1, ""),)) == ()


def test_asking_again_embeds_nothing_new(embedder: BagOfWordsEmbedder) -> None:
    selector = ExtractiveSelector(embedder)
    first = selector("annual leave days?", PASSAGES)
    embedder.embedded.clear()
    assert selector("annual leave days?", PASSAGES) == first
    assert embedder.embedded == []


@pytest.mark.model
def test_the_real_model_finds_answers_in_other_words(models_dir: Path) -> None:
    selector = ExtractiveSelector(MiniLmEmbedder.load(models_dir))
    assert selector("How much paid holiday do staff get?", PASSAGES)[:1] == (
        ("Full-time employees receive 25 days of annual leave per year.", 1),
    )
    assert selector("What is the capital of Mongolia?", PASSAGES) == ()


def test_a_heading_leads_the_sentences_below_it_and_is_no_answer() -> None:
    texts = [
        one.text
        for one in candidates(
            [SourcePassage(1, "5.2 Annual leave\n\nYou get 25 days.\n\nSick pay\n\nSick pay is full pay.")]
        )
    ]
    assert texts == ["You get 25 days.", "Sick pay is full pay."]
