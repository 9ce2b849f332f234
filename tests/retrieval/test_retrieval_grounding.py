import os
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from retrieval_world import passage

from mainstay.core.errors import InvalidInput
from mainstay.retrieval import GroundingScorer, Support, cite, split_sentences, verify_citation
from mainstay.retrieval.facts import read_facts
from mainstay.retrieval.support_features import FEATURES, Sources, measure

LEAVE = (
    "Full-time employees receive 25 days of paid annual leave per calendar year, plus public holidays. "
    "Leave must be requested at least 14 days in advance and approved by your manager. "
    "Up to 5 unused days may be carried over and must be used by 31 March. "
    "Sick leave is paid at full salary for the first 10 days. "
    "Employees may not work remotely from outside the country without written approval from Legal."
)
REFUNDS = "Refunds are issued within 14 days.\n\nplan,price_eur\nbasic,9\nteam,49"
PASSAGES = [passage(LEAVE, start=100, title="Leave"), passage(REFUNDS, number=2, start=7, title="Refunds")]


@pytest.fixture(scope="module")
def scorer() -> GroundingScorer:
    return GroundingScorer.load()


@pytest.mark.parametrize("span", split_sentences(LEAVE))
def test_a_copied_sentence_is_supported_by_itself(scorer: GroundingScorer, span: tuple[int, int]) -> None:
    support = scorer.support(LEAVE[slice(*span)], PASSAGES)
    assert support.supported
    assert support.score > 0.95
    assert (support.passage, support.start, support.end) == (1, 100 + span[0], 100 + span[1])


@pytest.mark.parametrize(
    "sentence",
    [
        "You get 25 days of annual leave per year.",
        "Full-time employees are entitled to 25 days of paid leave each year [1].",
        "You can carry over up to 5 unused days, which must be used by 31 March.",
        "Leave requests need manager approval and must be made 14 days ahead.",
        "1. Refunds are issued in 14 days.",
        "Up to five unused days may be carried over.",
    ],
)
def test_a_faithful_paraphrase_is_supported(scorer: GroundingScorer, sentence: str) -> None:
    assert scorer.support(sentence, PASSAGES).supported


@pytest.mark.parametrize(
    "sentence",
    [
        "Employees receive 30 days of annual leave per year.",
        "Full-time employees receive 25.5 days of paid annual leave per calendar year, plus public holidays.",
        "You can carry over up to 10 unused days.",
        "Sick leave is paid at full salary for 25 days.",
        "Refunds are issued within 14 days by form B12.",
        "The policy has applied since 2019.",
        "The team plan costs 9,500 euros.",
        "Leave for employees costs 5 million.",
    ],
)
def test_a_number_from_nowhere_or_from_elsewhere_is_unsupported(
    scorer: GroundingScorer, sentence: str
) -> None:
    assert not scorer.support(sentence, PASSAGES).supported


@pytest.mark.parametrize(
    "sentence",
    [
        "Employees may work remotely from outside the country.",
        "Refunds are not issued within 14 days.",
        "Sick leave is unpaid for the first 10 days.",
        "The company offers free lunch to all staff.",
        "Ask Susan Miller in Accounting to approve the request.",
        "I hope this helps!",
        "",
        "!!!",
    ],
)
def test_what_the_sources_do_not_say_is_unsupported(scorer: GroundingScorer, sentence: str) -> None:
    assert not scorer.support(sentence, PASSAGES).supported


def test_without_passages_nothing_is_supported(scorer: GroundingScorer) -> None:
    assert scorer.support("Employees receive 25 days.", []) == Support(0.0, False, None, None, None)


def test_an_answer_is_scored_sentence_by_sentence(scorer: GroundingScorer) -> None:
    answer = "You get 25 days of annual leave. The office has a swimming pool."
    scored = scorer.support_all(answer, PASSAGES)
    assert [answer[a:b] for (a, b), _ in scored] == [answer[:32], answer[33:]]
    assert [support.supported for _, support in scored] == [True, False]


def test_a_citation_quotes_the_span_and_verifies_against_the_version(scorer: GroundingScorer) -> None:
    document = "x" * 100 + LEAVE
    citation = cite(scorer.support("Sick leave is paid for the first 10 days.", PASSAGES), PASSAGES)
    assert citation.quote == "Sick leave is paid at full salary for the first 10 days."
    assert (citation.number, citation.version_id, citation.page) == (1, "v1", 2)
    assert verify_citation(citation, document)
    assert not verify_citation(citation, document.replace("full salary", "half salary"))
    assert not verify_citation(citation, document[:50])
    assert not verify_citation(replace(citation, start=-1, end=len(document), quote=document[-1]), document)
    assert not verify_citation(replace(citation, end=citation.start, quote=""), document)


def test_a_table_row_is_cited_as_one_line(scorer: GroundingScorer) -> None:
    citation = cite(scorer.support("team,49", [PASSAGES[1]]), PASSAGES)
    assert citation.quote == "team,49"


def test_nothing_cannot_be_cited() -> None:
    with pytest.raises(InvalidInput):
        cite(Support(0.0, False, None, None, None), PASSAGES)
    with pytest.raises(InvalidInput):
        cite(Support(0.9, True, 9, 0, 1), PASSAGES)


@pytest.mark.parametrize(
    "text", ["Urlaub beträgt 25 Tage im Jahr.", "年次有給休暇は二十日間です。", "Отпуск 25 дней."]
)
def test_other_languages_are_compared_by_their_words(scorer: GroundingScorer, text: str) -> None:
    assert scorer.support(text, [passage(text)]).supported
    assert not scorer.support("Rechnung bezahlt.", [passage(text)]).supported


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=60))
def test_features_stay_in_range_and_more_sources_hide_no_words(one: str, two: str, sentence: str) -> None:
    facts = read_facts(sentence)
    few, more = Sources([("", one)]), Sources([("", one), ("", two)])
    measured = measure(facts, more)
    assert len(measured.values) == len(FEATURES)
    assert all(0 <= value <= 1 + 1e-9 for value in measured.values)
    assert few.all_stems <= more.all_stems
    assert few.numbers <= more.numbers


def test_numbers_are_compared_by_value() -> None:
    assert read_facts("1,000 or 5.50 or 2 million or 07").numbers == {"1000", "5.5", "2000000", "7"}
    assert read_facts("twelve days").number_words == {"12"}
    assert read_facts("- 3. It isn't so [2]").numbers == {"3"}
    assert read_facts("2. It isn't so [2]").negated


_MEASURE = """
from mainstay.retrieval.facts import read_facts
from mainstay.retrieval.support_features import Sources, measure
names = "pump valve tank meter alarm siren hall yard crew fan door lamp".split()
text = " ".join(f"Take the {' and the '.join(names[:n])}." for n in range(1, 12))
print([value.hex() for value in measure(read_facts(f"Bring {' '.join(names)} home."), Sources([("", text)])).covers])
"""


def test_a_score_is_the_same_in_every_process_to_the_last_bit() -> None:
    def measured(seed: int) -> str:
        env = os.environ | {"PYTHONHASHSEED": str(seed)}
        command = [sys.executable, "-c", _MEASURE]
        return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout

    assert len({measured(seed) for seed in range(4)}) == 1


@pytest.mark.parametrize(
    ("source", "claim"),
    [
        ("Employees are not allowed to bring pets to work.", "Allowed to bring pets to work."),
        ("Nobody may enter the reactor hall at night.", "May enter the reactor hall at night."),
        ("Crews don't smoke in the control room.", "Smoke in the control room."),
    ],
)
def test_what_stands_behind_a_not_that_is_left_off_is_unsupported(source: str, claim: str) -> None:
    assert not GroundingScorer.load().support(claim, [passage(source)]).supported
    assert GroundingScorer.load().support(source, [passage(source)]).supported


def test_the_end_of_a_sentence_that_negates_something_else_is_a_copy() -> None:
    source = passage("If you are not sure, call the control room.")

    assert GroundingScorer.load().support("Call the control room.", [source]).supported
