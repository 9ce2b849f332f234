import random
import string
from collections.abc import Callable

import pytest

from mainstay.guard import Verdict

Judge = Callable[..., Verdict]


SEED = random.Random(7)  # the same texts in every process that collects these tests


def _random(length: int, alphabet: str = string.ascii_letters + string.digits) -> str:
    return "".join(SEED.choice(alphabet) for _ in range(length - 1)) + "7"


@pytest.mark.parametrize(
    ("secret", "kind"),
    [
        ("AKIA" + _random(15, string.ascii_uppercase) + "Q", "aws_access_key"),
        ("ghp_" + _random(36), "github_token"),
        ("sk-proj-" + _random(40), "openai_key"),
        ("sk-ant-" + _random(40), "anthropic_key"),
        ("xoxb-" + _random(24), "slack_token"),
        ("AIza" + _random(35), "google_api_key"),
        ("ms-" + _random(32), "mainstay_key"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0." + _random(30), "jwt"),
    ],
)
def test_a_credential_is_known_by_its_shape(judge: Judge, secret: str, kind: str) -> None:
    # the tail of an AWS key must be of its own alphabet
    secret = secret.replace("7Q", "QQ") if kind == "aws_access_key" else secret
    verdict = judge(f"use {secret} here", secrets="mask")
    assert verdict.text == f"use [{kind.upper()}] here"
    assert verdict.findings[0].kind == kind


def test_a_private_key_is_masked_even_when_it_is_cut_short(judge: Judge) -> None:
    head = "-----BEGIN OPENSSH PRIVATE " + "KEY-----\nb3BlbnNzaC1rZXk"
    assert judge(f"x {head}", secrets="mask").text == "x [PRIVATE_KEY]"


def test_a_random_value_after_a_telling_word_is_a_secret(judge: Judge) -> None:
    assert judge("password: hV9!kq2Zt7#x", secrets="mask").text == "password: [SECRET]"
    assert judge("token=9f8a7c6b5d4e3f2a1b0c", secrets="mask").text == "token=[SECRET]"


@pytest.mark.parametrize(
    "text",
    [
        "A password has at least fourteen characters.",
        "The token is refreshed automatically.",
        "Set the API key under Settings, then Integrations.",
        "ms-windows-configuration-settings-page",
        "sk-learn is a library",
        "password: yourpasswordhere",
    ],
)
def test_talk_about_secrets_is_no_secret(judge: Judge, text: str) -> None:
    assert judge(text, secrets="block").action == "allow"


def test_a_password_in_an_address_is_masked(judge: Judge) -> None:
    assert judge("postgresql://app:s3cret@db/x", secrets="mask").text == "postgresql://[URL_PASSWORD]@db/x"


@pytest.mark.parametrize(
    "text",
    [
        "token" + " " * 100_000 + "!",
        "ms-" * 33_000,
        "eyJaaaaaaaa-" * 8_000,
        "password is " * 8_000,
    ],
    ids=["spaces", "key-prefixes", "jwt-prefixes", "assignments"],
)
def test_a_text_made_to_be_slow_is_read_through(judge: Judge, text: str) -> None:
    # A pattern that goes back over what it read would not come to an end here.
    assert judge(text, secrets="mask").text == text
