"""What an app shows of an answer: sentences its sources support, with their citations; else the sources' own, or a refusal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from serving_asking import CALLER, asked, made
from serving_plane import CHECK_IN, HANDBOOK, NEAR_MISS, RULES, Plane, runnable

from mainstay.guard.types import GroundingRule, Policy
from mainstay.observe.types import Attr
from mainstay.serving import ask, is_refusal


def with_grounding(**changes: Any) -> Policy:
    return replace(RULES, grounding=replace(RULES.grounding, **changes))


async def test_a_supported_answer_keeps_its_words_and_gains_numbers(plane: Plane) -> None:
    plane.model.says(f"{NEAR_MISS} [2] {CHECK_IN} {NEAR_MISS}")
    final = await asked(plane)
    assert final.text == f"{NEAR_MISS} [1] {CHECK_IN} [2]"
    assert [c.number for c in final.citations] == [1, 2]
    assert all(HANDBOOK[c.start : c.end] == c.quote for c in final.citations)
    assert final.grounding.supported_share == 1.0
    assert (final.answered_by, final.refused) == ("acme/small", False)


async def test_an_unanswerable_question_is_refused_without_asking_a_model(plane: Plane) -> None:
    plane.runs(("bot", runnable(answerable_min=0.5)))
    plane.corpus.answerable = 0.2
    final = await asked(plane)
    assert final.text == "The sources do not say."
    assert (final.refused, final.answered_by, final.cost_nusd) == (True, "refusal", 0)
    assert final.grounding.fallback == "refused"
    assert plane.model.calls == []
    assert plane.sink.traces[0][0].attributes[Attr.COST_NUSD] == 0


async def test_unsupported_words_are_replaced_by_the_sources_own(plane: Plane) -> None:
    plane.model.says("Whales sing. Elephants fly at night.")
    final = await asked(plane)
    assert final.text == f"{CHECK_IN} [1]"
    assert (final.answered_by, final.grounding.fallback) == ("local/extractive", "extractive")
    assert final.grounding.removed == ("Whales sing.", "Elephants fly at night.")
    assert final.grounding.supported_share == 0.0
    assert [n for n in plane.sink.names() if n.startswith("chat ")] == ["chat small", "chat extractive"]


async def test_without_a_sentence_that_helps_the_policy_refuses(plane: Plane) -> None:
    plane.model.says("Whales sing.")
    final = await asked(plane, "Who won?")
    assert (final.text, final.refused, final.grounding.fallback) == (
        "The sources do not say.",
        True,
        "refused",
    )
    assert final.citations == ()


async def test_a_policy_may_refuse_instead_of_extracting(plane: Plane) -> None:
    plane.runs(("bot", runnable(policy=with_grounding(fallback="refuse"))))
    plane.model.says("Whales sing.")
    final = await asked(plane)
    assert (final.text, final.answered_by) == ("The sources do not say.", "refusal")


async def test_a_models_own_refusal_is_a_refusal(plane: Plane) -> None:
    plane.model.says("The handbook does not say when cars must check in.")
    final = await asked(plane)
    assert (final.text, final.refused) == ("The sources do not say.", True)
    assert (final.answered_by, final.grounding.fallback) == ("acme/small", None)
    assert final.grounding.supported_share is None


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("The sources do not say.", True),
        ("the sources do not say", True),
        ("The passages don't mention any parking rules.", True),
        ("I cannot answer this from the text.", True),
        ("There is no information about that in the passages.", True),
        ("It is not mentioned in the provided context.", True),
        ("Crew must not smoke on deck.", False),
        ("Cars do not need a permit.", False),
    ],
)
def test_a_refusal_is_known_by_its_words(text: str, refusal: bool) -> None:
    assert is_refusal(text, Policy("p", {}, GroundingRule())) is refusal


async def test_flagged_sentences_are_shown_once_one_is_supported(plane: Plane) -> None:
    plane.runs(("bot", runnable(policy=with_grounding(unsupported="flag"))))
    plane.model.says("Whales sing. ", CHECK_IN, " Elephants fly.")
    final = await asked(plane)
    assert final.text == f"Whales sing. {CHECK_IN} [1] Elephants fly."
    assert final.grounding.flagged == ("Whales sing.", "Elephants fly.")
    assert final.grounding.fallback is None


async def test_a_wholly_unsupported_answer_is_replaced_under_flag_too(plane: Plane) -> None:
    plane.runs(("bot", runnable(policy=with_grounding(unsupported="flag"))))
    plane.model.says("Whales sing.")
    final = await asked(plane)
    assert (final.text, final.grounding.fallback) == (f"{CHECK_IN} [1]", "extractive")
    assert (final.grounding.removed, final.grounding.flagged) == (("Whales sing.",), ())


async def test_keep_shows_every_sentence(plane: Plane) -> None:
    plane.runs(("bot", runnable(policy=with_grounding(unsupported="keep"))))
    plane.model.says(f"Whales sing. {CHECK_IN}")
    final = await asked(plane)
    assert final.text == f"Whales sing. {CHECK_IN} [1]"
    assert final.grounding.supported_share == 0.5


async def test_a_quote_that_is_not_in_the_stored_text_is_never_cited(plane: Plane) -> None:
    plane.model.says(CHECK_IN)
    changed = replace(plane.deps, version_text=lambda version_id: HANDBOOK.replace("30", "45"))
    final = await ask(made(model="bot", identity=CALLER, source_format=None), changed)
    assert final.citations == ()
    assert CHECK_IN not in final.text


async def test_what_the_policy_masks_in_an_answer_is_masked_in_its_quotes(plane: Plane) -> None:
    plane.corpus.texts["version_2"] = "The depot in Ardvale pays for diesel with card 4111 1111 1111 1111."
    plane.model.says("The depot in Ardvale pays for diesel with card.")
    final = await asked(plane, "How does the depot pay?")
    assert final.citations[0].quote == "The depot in Ardvale pays for diesel with card [CREDIT_CARD]."


async def test_a_heading_is_no_answer(plane: Plane) -> None:
    plane.corpus.texts["version_2"] = "## Step 5 of the descaling\n\nHold the button for 5 seconds."
    plane.model.says("## Step 5 of the descaling")
    final = await asked(plane, "What is step 5?")
    assert final.text == "The sources do not say."


async def test_a_heading_in_the_middle_of_a_passage_is_no_answer_either(plane: Plane) -> None:
    plane.corpus.texts = {"version_1": f"## Response times. {CHECK_IN}"}
    plane.model.says("## Response times.")
    final = await asked(plane)
    assert (final.text, final.grounding.fallback) == (f"{CHECK_IN} [1]", "extractive")


async def test_a_repeated_heading_is_no_answer(plane: Plane) -> None:
    plane.corpus.texts = {"version_1": f"Check in times. {CHECK_IN}"}
    plane.corpus.headings = ("Check in times.",)
    plane.model.says(f"Check in times. {CHECK_IN}")
    final = await asked(plane)
    assert final.text == f"{CHECK_IN} [1]"
    assert final.grounding.removed == ("Check in times.",)
