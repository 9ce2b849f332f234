from pathlib import Path

import pytest

from mainstay.core.errors import ConfigError, InvalidInput
from mainstay.guard import CheckRule, default_policy, load_policy, policy_body, policy_from_body

CAREFUL = Path(__file__).parents[2] / "examples/handbook/policies/careful.yaml"


def _load(tmp_path: Path, text: str) -> str:
    path = tmp_path / "p.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as raised:
        load_policy(path, "p")
    return str(raised.value)


def test_the_example_policy_says_what_its_file_says() -> None:
    policy = load_policy(CAREFUL, "careful")
    assert policy.rails["context"] == (CheckRule("invisible_unicode", "mask"), CheckRule("injection", "mask"))
    assert policy.grounding.unsupported == "remove"
    assert policy.grounding.refusal == "The handbook does not say."
    assert [r.action for r in policy.rails["input"] if r.check == "secrets"] == ["block", "mask"]


@pytest.mark.parametrize(
    "policy", [default_policy(), load_policy(CAREFUL, "careful"), load_policy({}, "empty")]
)
def test_a_policy_survives_its_json_form(policy: object) -> None:
    body = policy_body(policy)  # type: ignore[arg-type]
    assert policy_from_body(body) == policy


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("input:\n  pi: mask\n", 2, "Did you mean 'pii'?"),
        ("input:\n  pii: masks\n", 2, "Did you mean 'mask'?"),
        ("inptu: {}\n", 1, "Did you mean 'input'?"),
        ("input:\n  injection:\n    action: block\n    threshold: 7\n", 4, "from 0 to 1"),
        ("input:\n  pii:\n    threshold: 0.5\n    action: mask\n", 3, "has no score"),
        ("input:\n  pii:\n    kinds: [email]\n", 2, "an action is missing"),
        ("input:\n  pii:\n    action: mask\n    kinds: [emails]\n", 4, "does not know 'emails'"),
        ("input:\n  pii:\n    action: mask\n    allow: ['(']\n", 4, "no regular expression"),
        ("input:\n  injection: drop\n", 2, "Use block or mask."),
        ("context:\n\n  injection: {action: drop, on_error: pass}\n", 3, "must be block or flag"),
        ("grounding:\n  unsupported: delete\n", 2, "no such choice"),
        ("grounding:\n  refusal: ''\n", 2, "must be a sentence"),
        ("blocked_message: 5\n", 1, "must be a sentence"),
        ("- input\n", 1, "must be a mapping, not a list"),
        ("input: mask\n", 1, "must be a mapping, not text"),
    ],
)
def test_a_mistake_is_shown_with_its_line_and_its_remedy(
    tmp_path: Path, text: str, line: int, says: str
) -> None:
    message = _load(tmp_path, text)
    assert f"p.yaml, line {line}:" in message
    assert says in message


def test_a_body_of_another_format_is_refused() -> None:
    with pytest.raises(InvalidInput, match="format 2"):
        policy_from_body({**policy_body(default_policy()), "format": 2})
