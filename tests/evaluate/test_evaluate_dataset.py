import json
from pathlib import Path

import pytest

from mainstay.core.errors import ConfigError
from mainstay.evaluate import case_body, case_from_body, dataset_digest, load_dataset

HANDBOOK = Path(__file__).parents[2] / "examples/handbook/datasets/questions.jsonl"
GOOD = {
    "id": "q1",
    "question": "When?",
    "answer": "At ten.",
    "accept": [["ten", "10"]],
    "spans": [{"document": "a.md", "quote": "It opens at ten."}],
    "kind": "single",
}


def test_the_example_dataset_loads_and_keeps_its_digest_in_json_form() -> None:
    cases = load_dataset(HANDBOOK)
    again = [case_from_body(json.loads(json.dumps(case_body(case)))) for case in cases]
    assert dataset_digest(again) == dataset_digest(cases)
    assert {case.kind for case in cases} == {"single", "two_passages", "unanswerable"}


def test_another_question_is_another_version() -> None:
    changed = case_from_body(GOOD | {"question": "At what time?"})
    assert dataset_digest([case_from_body(GOOD)]) != dataset_digest([changed])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"qustion": "x"}, "qustion: no such field. Did you mean 'question'?"),
        ({"question": None}, "question: is missing."),
        ({"question": " "}, "question: must be text."),
        ({"id": 3}, "id: must be text."),
        ({"kind": "singel"}, "kind: no such kind: 'singel'. Did you mean 'single'?"),
        ({"accept": "ten"}, "accept: must be a list."),
        ({"accept": ["ten"]}, "accept[0]: must be a list of texts."),
        ({"accept": []}, "accept: is empty"),
        ({"kind": "unanswerable"}, "accept: an unanswerable case has no right answer"),
        ({"spans": [{"document": "a.md"}]}, "spans[0]: must hold document and quote"),
    ],
)
def test_a_mistake_names_its_line_and_field(tmp_path: Path, change: dict[str, object], says: str) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(json.dumps(GOOD | {"id": "q0"}) + "\n\n" + json.dumps(GOOD | change), encoding="utf-8")
    with pytest.raises(ConfigError) as raised:
        load_dataset(path)
    assert f"d.jsonl, line 3: {says}" in str(raised.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (json.dumps(GOOD) + "\n" + json.dumps(GOOD), "line 2: id: 'q1' is already on line 1."),
        ('{"id": "q1",\n', "line 1, column"),
        ("[1]", "line 1: a case must be a JSON object"),
        ("\n\n", "holds no case"),
    ],
)
def test_a_broken_file_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"d\.jsonl") as raised:
        load_dataset(path)
    assert says in str(raised.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="There is no file"):
        load_dataset(tmp_path / "none.jsonl")


def test_a_byte_order_mark_is_no_part_of_the_first_case(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(json.dumps(GOOD), encoding="utf-8-sig")
    assert [case.id for case in load_dataset(path)] == ["q1"]


def test_a_folder_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_dataset(tmp_path)
