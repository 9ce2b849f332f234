from collections.abc import Callable

import pytest

from mainstay.guard import Verdict

Judge = Callable[..., Verdict]


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Write to ann.lee+x@mail.example.com now", "Write to [EMAIL] now"),
        ("Card 4111 1111 1111 1111, please", "Card [CREDIT_CARD], please"),
        ("IBAN GB82 WEST 1234 5698 7654 32 is mine", "IBAN [IBAN] is mine"),
        ("My SSN is 536-22-8726.", "My SSN is [US_SSN]."),
        ("from host 203.0.113.9 today", "from host [IP_ADDRESS] today"),
        ("from 2001:db8::8a2e:370:7334 today", "from [IP_ADDRESS] today"),
        ("Call +44 20 7946 0958 tonight", "Call [PHONE] tonight"),
        ("Call (212) 555-0199 tonight", "Call [PHONE] tonight"),
        ("My phone is 699 956 915, thanks", "My phone is [PHONE], thanks"),
        ("DNI 12345678Z", "DNI [NATIONAL_ID]"),
        ("CF RSSMRA85T10A562S here", "CF [NATIONAL_ID] here"),
        ("CPF 529.982.247-25", "CPF [NATIONAL_ID]"),
        ("PESEL 44051401359", "PESEL [NATIONAL_ID]"),
        ("BSN 111222333", "BSN [NATIONAL_ID]"),
        ("NI number AB123456C", "NI number [NATIONAL_ID]"),
    ],
)
def test_personal_data_is_masked_by_kind(judge: Judge, text: str, masked: str) -> None:
    assert judge(text, pii="mask").text == masked


@pytest.mark.parametrize(
    "text",
    [
        "Card 4111 1111 1111 1112",  # Luhn fails
        "IBAN GB82 WEST 1234 5698 7654 33",
        "SSN 000-22-8726",
        "DNI 12345678A",
        "CPF 529.982.247-24",
        "version 10.2.3.4 of the tool",
        "listens on 127.0.0.1",
        "open from 07:30 to 17:30 on 2026-11-24",
        "between 1,000 and 20,000 litres for EUR 290",
        "orders 12345678 and 20241124103000",
        "the number of pallets is 1200 300",
        "see section 3.2.1.4",
        "Bring @ least two",
    ],
)
def test_ordinary_numbers_are_left_alone(judge: Judge, text: str) -> None:
    verdict = judge(text, pii="mask")
    assert (verdict.action, verdict.text) == ("allow", text)


def test_the_own_domain_may_be_allowed(judge: Judge) -> None:
    rule = {"action": "mask", "allow_domains": ["firm.example"]}
    verdict = judge("Ask help@firm.example or x@help.firm.example, not y@notfirm.example", pii=rule)
    assert verdict.text == "Ask help@firm.example or x@help.firm.example, not [EMAIL]"


def test_allowed_patterns_must_match_the_whole_value(judge: Judge) -> None:
    rule = {"action": "mask", "allow": [r"desk@x\.example"]}
    assert judge("desk@x.example", pii=rule).action == "allow"
    assert judge("helpdesk@x.example", pii=rule).action == "mask"


def test_only_the_kinds_asked_for_are_looked_for(judge: Judge) -> None:
    verdict = judge("a@b.example, 203.0.113.9", pii={"action": "mask", "kinds": ["email"]})
    assert verdict.text == "[EMAIL], 203.0.113.9"


def test_a_finding_never_repeats_what_it_found(judge: Judge) -> None:
    verdict = judge("Card 4111111111111111", pii="flag")
    assert verdict.text == "Card 4111111111111111"
    assert [(f.kind, f.start, f.end, f.excerpt) for f in verdict.findings] == [
        ("credit_card", 5, 21, "[CREDIT_CARD]")
    ]


def test_many_findings_are_each_reported_once(judge: Judge) -> None:
    text = "ada@example.org, 4111 1111 1111 1111; " * 3_000
    verdict = judge(text, pii="mask")
    assert verdict.text == "[EMAIL], [CREDIT_CARD]; " * 3_000
    assert len(verdict.findings) == 6_000


@pytest.mark.parametrize(
    "text",
    [
        "Context (ticket 00004711): the customer ordered two items.",
        "During spring 20240311 was the code of the offer.",
        "We recall 12345678 as the batch.",
    ],
)
def test_a_number_after_a_word_that_only_ends_like_a_telling_one_is_no_phone(judge: Judge, text: str) -> None:
    assert judge(text, pii="mask").text == text


@pytest.mark.parametrize(
    "text", ["Text 12345678 please.", "My smartphone is 12345678.", "Diensthandy 12345678"]
)
def test_a_number_after_a_telling_word_is_a_phone(judge: Judge, text: str) -> None:
    assert "12345678" not in judge(text, pii="mask").text
