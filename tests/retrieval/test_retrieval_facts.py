"""The rule of facts: amounts, dates and contrasts stay with the sentence they belong to."""

import pytest
from retrieval_world import passage

from mainstay.retrieval import GroundingScorer, is_cut_off, is_title, split_sentences
from mainstay.retrieval.quantities import holds_exactly, read_exact

HARBOUR = (
    "5.2 Reporting spills and losses\n\n"
    "A spill must be reported to the harbour office within 12 hours. A fall must be reported to the harbour office "
    "at once, and the written fall form must be filed before the end of the watch. "
    "The Quality Manager reviews every fall form within 4 working days."
)
ALARMS = (
    "During a level 1 alarm, the watch leader sends a situation report every 20 minutes. "
    "During a level 2 alarm, a situation report is sent every 3 hours. "
    "The old blue Marlow passes stop working on 30 September. New passes are posted before 12 October. "
    "A class A fault must be repaired within 8 hours. A class B fault must be repaired within 96 hours."
)
STAFF = (
    "A full-time worker gets 28 days of paid annual leave each calendar year. "
    "Part-time workers get annual leave in proportion to their hours. "
    "Claims must be sent before the audit. The drill is held twice a year, on a Tuesday. "
    "The minimum rest between two watches is 11 hours. The desk is open from 06:00 to 21:00. "
    "A crate must not weigh more than 1,200 kilograms. The weekly bonus is EUR 210. "
    "Route R1 goes to the island and takes 55 minutes. Route R2 goes to the cape and takes 100 minutes. "
    "Visitors may bring two guests. They must register them 5 days ahead."
)
PASSAGES = [passage(HARBOUR), passage(ALARMS, number=2), passage(STAFF, number=3)]


@pytest.fixture(scope="module")
def scorer() -> GroundingScorer:
    return GroundingScorer.load()


@pytest.mark.parametrize(
    "sentence",
    [
        # the amount belongs to another sentence
        "A fall must be reported to the harbour office at once, and the written fall form must be filed within 4 working days.",
        "The written fall form must be filed within 12 hours.",
        "During a level 2 alarm, a situation report is sent every 20 minutes.",
        "During a level 2 alarm the watch leader and the crew send a situation report every 20 minutes.",
        "The watch leader sends a situation report every 3 hours during a level 1 alarm.",
        "A class B fault must be repaired within 8 hours.",
        "R1 takes 100 minutes and R2 takes 55 minutes.",
        # a date of two halves
        "The blue passes stop working on 30 October.",
        "The blue passes stop working on 12 September.",
        "New passes are posted before October 30.",
        # contrasts
        "A part-time worker gets 28 days of paid annual leave.",
        "Claims must be sent after the audit.",
        "The maximum rest between two watches is 11 hours.",
        "Visitors must bring two guests.",
        # units, days, times, rates
        "A spill must be reported to the harbour office within 12 days.",
        "The drill is held twice a month, on a Tuesday.",
        "The drill is held twice a year, on a Friday.",
        "The desk is open from 06:00 to 12:00.",
        "A crate must not weigh more than 1,200 tonnes.",
        "The monthly bonus is EUR 210.",
    ],
)
def test_a_fact_that_stands_elsewhere_or_was_changed_is_unsupported(
    scorer: GroundingScorer, sentence: str
) -> None:
    assert not scorer.support(sentence, PASSAGES).supported


@pytest.mark.parametrize(
    ("sentence", "source"),
    [
        ("A spill must be reported to the harbour office within 12 hours.", "A spill must be"),
        ("1. A spill must be reported to the harbour office within 12 hours.", "A spill must be"),
        ("Spills are reported to the harbour office within 12 hours.", "A spill must be"),
        ("Report a spill to the harbour office within 12 h.", "A spill must be"),
        ("Spills must be reported within twelve hours.", "A spill must be"),
        (
            "The watch leader sends a situation report every 3 hours during a level 2 alarm.",
            "During a level 2 alarm",
        ),
        ("- A situation report is sent every 20 minutes during a level 1 alarm.", "During a level 1 alarm"),
        ("The old blue passes stop working on 30 September.", "The old blue Marlow"),
        ("The old blue passes stop working on September 30th.", "The old blue Marlow"),
        ("A class B fault has to be repaired in 96 hours.", "A class B"),
        ("Full-time workers get 28 days of paid annual leave per year.", "A full-time"),
        ("The drill is held twice a year.", "The drill is"),
        ("The desk opens from 6:00 to 21:00.", "The desk is"),
        ("A crate must not weigh more than 1200 kg.", "A crate must"),
        ("The weekly bonus is 210 euros.", "The weekly"),
        ("Visitors may bring 2 guests.", "Visitors may"),
        ("Visitors must register guests 5 days ahead.", "They must"),
    ],
)
def test_the_facts_of_one_source_sentence_are_supported_and_cite_it(
    scorer: GroundingScorer, sentence: str, source: str
) -> None:
    support = scorer.support(sentence, PASSAGES)
    assert support.supported
    assert support.passage is not None
    assert PASSAGES[support.passage - 1].text[support.start : support.end].startswith(source)


@pytest.mark.parametrize(
    "sentence",
    [
        "A spill must be reported to the harbour office within 12 hours, and a class A fault must be repaired within 8 hours.",
        "R1 takes 55 minutes and R2 takes 100 minutes.",
        "A full-time worker gets 28 days of paid annual leave; the minimum rest between two watches is 11 hours.",
    ],
)
def test_a_sentence_of_two_sources_is_supported_clause_by_clause(
    scorer: GroundingScorer, sentence: str
) -> None:
    assert scorer.support(sentence, PASSAGES).supported


@pytest.mark.parametrize(
    "sentence",
    [
        "During a level 1 alarm, the watch leader sends a situation report every",
        "A spill must be reported to the",
        "Claims must be sent before",
        "Part-time workers get annual leave in proportion to the.",
        "The minimum rest is at least 11",
    ],
)
def test_a_sentence_cut_off_in_its_middle_is_never_supported(scorer: GroundingScorer, sentence: str) -> None:
    assert is_cut_off(sentence)
    assert not scorer.support(sentence, PASSAGES).supported


@pytest.mark.parametrize(
    "sentence",
    [
        "Within 24 hours",
        "Up to EUR 40",
        "It was the day before.",
        "Take vitamin A.",
        "team,49",
        "12",
        "",
        "年次",
    ],
)
def test_a_short_answer_is_not_taken_for_a_cut_off_one(sentence: str) -> None:
    assert not is_cut_off(sentence)


def test_a_heading_stays_apart_from_the_sentence_below_it() -> None:
    text = "5.2 Reporting accidents, near misses and other dangerous occurrences\nAn injury must be reported."
    assert [text[a:b] for a, b in split_sentences(text)] == text.split("\n")


@pytest.mark.parametrize(
    ("line", "follows", "title"),
    [
        ("5.2 Reporting spills", "", True),
        ("## Drills", "", True),
        ("Sick pay", "\n\nSick pay is full pay.", True),
        ("Sick pay", "", False),
        ("48 cars", "\n\nmore", False),
        ("Refunds take 14 days.", "\n\nmore", False),
        ("1. Call the office", "\n\nmore", False),
    ],
)
def test_headings_are_known_by_their_form(line: str, follows: str, title: bool) -> None:
    assert is_title(line, follows) is title


@pytest.mark.parametrize(
    ("claim", "source", "held"),
    [
        ("2 weeks", "two weeks", True),
        ("2 weeks", "2 days", False),
        ("3 working days", "3 days", True),
        ("14 days", "notice_days: 14", True),
        ("10 days", "10 euros within 30 days", False),
        ("€40", "EUR 40.00", True),
        ("on 2026-09-30", "30 September", True),
        ("in September", "on 30 September", True),
        ("on 30 September", "in September, 30 people", False),
        ("the 4th day", "the fourth day", True),
        ("10 pm", "22:00", True),
        ("Friday", "Monday", False),
        ("You may go by 3 May", "3 May", True),
        ("level 2", "level 1, 2 people", False),
    ],
)
def test_amounts_and_dates_are_compared_with_what_they_measure(claim: str, source: str, held: bool) -> None:
    said = read_exact(source)
    numbers = frozenset(quantity.value for quantity in said.quantities)
    assert holds_exactly(read_exact(claim), said, numbers) is held
