"""Check the evaluation questions of the example handbook against its documents.

Run it from the top of the repository:

    .venv/bin/python examples/handbook/source/check_questions.py

It verifies that every quote stands literally in its document's stored text (whitespace folded),
that identifiers are unique, that each reference answer meets its own ``accept`` groups,
and that there are enough questions of each kind. It exits with 1 when something is wrong.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mainstay.knowledge.parsers import parser_for

FOLDER = Path(__file__).resolve().parent.parent
KNOWLEDGE = FOLDER / "knowledge"
QUESTIONS = FOLDER / "datasets" / "questions.jsonl"
DEMO = FOLDER / "demo_questions.json"
FIELDS = {"id", "question", "answer", "accept", "spans", "kind"}
LEAST = {"unanswerable": 10, "two_passages": 6}
LEAST_IN_ALL = 50
WORDS_PER_PAGE = 350
LEAST_PAGES = 30

Question = dict[str, Any]


def fold(text: str) -> str:
    """Replace every run of whitespace by one space."""
    return " ".join(text.split())


def document_text(path: Path) -> str:
    """The text of one document as Mainstay stores it, with whitespace folded."""
    parser = parser_for(path.name)
    if parser is None:
        raise ValueError(f"no parser reads {path.name}")
    return fold(parser.parse(path.read_bytes(), path.name).text)


def meets(answer: str, accept: list[list[str]]) -> bool:
    """Whether an answer holds at least one string of every group."""
    folded = fold(answer).casefold()
    return all(any(fold(option).casefold() in folded for option in group) for group in accept)


def shape_problems(question: Question) -> Iterator[str]:
    """Problems in the fields of one question."""
    if set(question) != FIELDS:
        yield "has other fields than expected"
    if question["kind"] not in {"single", "two_passages", "unanswerable"}:
        yield f"has the unknown kind {question['kind']}"
    wanted = {"single": 1, "two_passages": 2, "unanswerable": 0}.get(question["kind"])
    if len(question["spans"]) != wanted:
        yield f"has {len(question['spans'])} spans"
    if bool(question["accept"]) != bool(question["spans"]):
        yield "has accepted strings without spans, or spans without accepted strings"
    if not meets(question["answer"], question["accept"]):
        yield "has a reference answer that it would not accept"


def quote_problems(question: Question, texts: dict[str, str]) -> Iterator[str]:
    """Quotes that do not stand in the document they name."""
    for span in question["spans"]:
        if span["document"] not in texts:
            yield f"names the unknown document {span['document']}"
        elif fold(span["quote"]) not in texts[span["document"]]:
            yield f"quotes text that is not in {span['document']}: {span['quote']}"


def count_problems(questions: list[Question]) -> Iterator[str]:
    """Problems of the whole set: doubled identifiers and too few questions."""
    for field in ("id", "question"):
        counts = Counter(question[field] for question in questions)
        yield from (f"{value}: {field} used {n} times" for value, n in counts.items() if n > 1)
    kinds = Counter(question["kind"] for question in questions)
    for kind, least in LEAST.items():
        if kinds[kind] < least:
            yield f"only {kinds[kind]} questions of kind {kind}"
    if len(questions) < LEAST_IN_ALL:
        yield f"only {len(questions)} questions"


def coverage_problems(questions: list[Question], texts: dict[str, str]) -> Iterator[str]:
    """Documents without a question, too little text, and unknown demo questions."""
    used = {span["document"] for question in questions for span in question["spans"]}
    yield from (f"no question about {name}" for name in sorted(set(texts) - used))
    if page_count(texts) < LEAST_PAGES:
        yield f"only {page_count(texts):.0f} pages of text"
    known = {question["question"] for question in questions}
    for demo in json.loads(DEMO.read_text(encoding="utf-8")):
        if demo["question"] not in known:
            yield f"demo question is not in the set: {demo['question']}"


def page_count(texts: dict[str, str]) -> float:
    """All words of the documents in pages."""
    return sum(len(text.split()) for text in texts.values()) / WORDS_PER_PAGE


def main() -> int:
    """Check everything and print a summary."""
    texts = {path.name: document_text(path) for path in sorted(KNOWLEDGE.iterdir())}
    lines = QUESTIONS.read_text(encoding="utf-8").splitlines()
    questions: list[Question] = [json.loads(line) for line in lines]
    problems = [*count_problems(questions), *coverage_problems(questions, texts)]
    for question in questions:
        found = [*shape_problems(question), *quote_problems(question, texts)]
        problems.extend(f"{question['id']} {problem}" for problem in found)
    for name, text in texts.items():
        print(f"{name}: {len(text.split())} words")
    print(f"{page_count(texts):.1f} pages of {WORDS_PER_PAGE} words")
    print(dict(Counter(question["kind"] for question in questions)), len(questions), "in all")
    print("\n".join(problems) or "No problems.")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
