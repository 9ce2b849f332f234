"""Policies: a YAML file that says what each check does on each rail, as `Policy`, and as JSON for artifacts.

input:
  pii: mask                                  # a check and its action
  injection: {action: block, threshold: 0.9} # with a threshold or options of the check
  secrets:                                   # several rules of one check
    - {action: block, kinds: [private_key]}
    - {action: mask}
context: …
output: …
grounding: {unsupported: remove, threshold: 0.5, fallback: extractive, refusal: "The handbook does not say."}
blocked_message: "…"
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

from mainstay.core.errors import ConfigError, InvalidInput, did_you_mean
from mainstay.core.yamlfile import KeyPath, YamlFile, load_yaml, parse_yaml
from mainstay.guard import checks as _shipped_checks  # noqa: F401 - importing registers them
from mainstay.guard.registry import COMMON_OPTIONS, checks
from mainstay.guard.types import Action, CheckRule, GroundingRule, Policy, Rail, Unsupported

RAILS: tuple[Rail, ...] = get_args(Rail)
ACTIONS: tuple[Action, ...] = get_args(Action)
BODY_FORMAT = 1
_TOP = (*RAILS, "grounding", "blocked_message")
_RULE = ("action", "threshold")
_GROUNDING = ("unsupported", "threshold", "fallback", "min_supported_sentences", "refusal")

_Fail = Callable[[KeyPath, str, str | None], ConfigError]


def load_policy(source: Path | Mapping[str, Any], name: str) -> Policy:
    """Read a policy file, or a mapping of the same form. ConfigError names the line, the mistake and the remedy."""
    if isinstance(source, Path):
        return _read(load_yaml(source), name)

    def fail(path: KeyPath, message: str, fix: str | None) -> ConfigError:
        where = ".".join(str(part) for part in path)
        return ConfigError(f"Policy {name!r}: {where + ': ' if where else ''}{message}", fix=fix)

    return _Reader(fail).policy(source, name)


def default_policy() -> Policy:
    """The policy of an app that names none: flags injection, masks secrets, drops poisoned passages."""
    path = Path("default.yaml")
    text = (files("mainstay.guard") / "data" / path.name).read_text(encoding="utf-8")
    return _read(parse_yaml(text, path), "default")


def policy_body(policy: Policy) -> dict[str, Any]:
    """A policy as JSON; `policy_from_body` gives back an equal policy."""
    grounding = policy.grounding
    return {
        "format": BODY_FORMAT,
        "name": policy.name,
        "rails": {
            rail: [
                {
                    "check": rule.check,
                    "action": rule.action,
                    "threshold": rule.threshold,
                    "options": {k: list(v) if isinstance(v, tuple) else v for k, v in rule.options.items()},
                }
                for rule in rules
            ]
            for rail, rules in policy.rails.items()
        },
        "grounding": {key: getattr(grounding, key) for key in _GROUNDING},
        "blocked_message": policy.blocked_message,
    }


def policy_from_body(body: Mapping[str, Any]) -> Policy:
    """Raises InvalidInput for a body of another format, and ConfigError as `load_policy` does."""
    if body.get("format") != BODY_FORMAT:
        raise InvalidInput(
            f"This policy has format {body.get('format')!r}; this version reads {BODY_FORMAT}.",
            fix="Make the policy again with `mainstay apply`.",
        )
    written: dict[str, Any] = {rail: _by_check(rules) for rail, rules in body["rails"].items()}
    written |= {"grounding": body["grounding"], "blocked_message": body["blocked_message"]}
    return load_policy(written, str(body["name"]))


def _by_check(rules: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    grouped: dict[str, list[dict[str, Any]]] = {}
    for rule in rules:
        written = {"action": rule["action"], **rule["options"]}
        if rule["threshold"] is not None:
            written["threshold"] = rule["threshold"]
        grouped.setdefault(rule["check"], []).append(written)
    return grouped


def _read(file: YamlFile, name: str) -> Policy:
    return _Reader(file.error).policy(file.data, name)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Turns parsed data into a policy; `fail` makes the error for a key path."""

    fail: _Fail

    def policy(self, data: object, name: str) -> Policy:
        top = self._mapping((), data if data is not None else {}, _TOP)
        rails = {rail: self._rail(rail, top[rail]) for rail in RAILS if top.get(rail)}
        message = top.get("blocked_message", Policy.__dataclass_fields__["blocked_message"].default)
        if not isinstance(message, str) or not message.strip():
            raise self.fail(("blocked_message",), "must be a sentence.", 'Write it in quotes: "…".')
        return Policy(name, rails, self._grounding(top.get("grounding")), message)

    def _mapping(self, at: KeyPath, value: object, known: Sequence[str] | None) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            raise self.fail(at, f"must be a mapping, not {_kind(value)}.", "Write `key: value` lines.")
        for key in value:
            if known is not None and key not in known:
                raise self.fail((*at, key), f"no such key here: {key!r}.", did_you_mean(str(key), known))
        return value

    def _rail(self, rail: Rail, value: object) -> tuple[CheckRule, ...]:
        rules: list[CheckRule] = []
        for check, written in self._mapping((rail,), value, None).items():
            if check not in checks:
                raise self.fail(
                    (rail, check), f"no check is called {check!r}.", did_you_mean(str(check), checks)
                )
            at: KeyPath = (rail, check)
            if isinstance(written, list):
                rules += [self._rule(rail, check, (*at, i), one) for i, one in enumerate(written)]
            else:
                rules.append(self._rule(rail, check, at, written))
        return tuple(rules)

    def _rule(self, rail: Rail, name: str, at: KeyPath, written: object) -> CheckRule:
        check = checks.get(name)
        options = {**COMMON_OPTIONS, **getattr(check, "options", {})}
        known = (*_RULE, *sorted(options))
        parts = self._mapping(at, {"action": written} if isinstance(written, str) else written, known)
        action = self._action(rail, at, parts.get("action"))
        threshold = parts.get("threshold")
        if threshold is not None:
            if not getattr(check, "scored", False):
                raise self.fail(
                    (*at, "threshold"), f"{name} finds or does not find; it has no score.", "Leave it out."
                )
            threshold = self._share((*at, "threshold"), threshold)
        parsed = {
            key: self._option((*at, key), options[key], value)
            for key, value in parts.items()
            if key not in _RULE
        }
        return CheckRule(name, action, threshold, parsed)

    def _option(self, at: KeyPath, parse: Callable[[object], object], value: object) -> object:
        try:
            return parse(value)
        except ValueError as error:
            raise self.fail(at, f"{error}.", None) from error

    def _action(self, rail: Rail, at: KeyPath, value: object) -> Action:
        if value is None:
            raise self.fail(at, "an action is missing.", f"Add `action:` with one of {', '.join(ACTIONS)}.")
        if value not in ACTIONS:
            raise self.fail(at, f"no such action: {value!r}.", did_you_mean(str(value), ACTIONS))
        if value == "drop" and rail == "input":
            raise self.fail(
                at, "drop removes a passage or a sentence; the input is neither.", "Use block or mask."
            )
        return value

    def _share(self, at: KeyPath, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise self.fail(at, f"must be a number from 0 to 1, not {value!r}.", "Write it like 0.5.")
        return float(value)

    def _grounding(self, value: object) -> GroundingRule:
        at: KeyPath = ("grounding",)
        parts = dict(self._mapping(at, {} if value is None else value, _GROUNDING))
        self._choice((*at, "unsupported"), parts, get_args(Unsupported))
        self._choice((*at, "fallback"), parts, ("extractive", "refuse"))
        if "threshold" in parts:
            parts["threshold"] = self._share((*at, "threshold"), parts["threshold"])
        least = parts.get("min_supported_sentences", 1)
        if isinstance(least, bool) or not isinstance(least, int) or not 0 <= least <= 100:
            raise self.fail(
                (*at, "min_supported_sentences"), "must be a whole number from 0 to 100.", "Write 1."
            )
        refusal = parts.get("refusal", "-")
        if not isinstance(refusal, str) or not refusal.strip():
            raise self.fail(
                (*at, "refusal"), "must be a sentence.", 'Write it in quotes: "The sources do not say.".'
            )
        return GroundingRule(**parts)

    def _choice(self, at: KeyPath, parts: Mapping[str, Any], known: Sequence[str]) -> None:
        key = at[-1]
        if key in parts and parts[str(key)] not in known:
            value = parts[str(key)]
            raise self.fail(at, f"no such choice: {value!r}.", did_you_mean(str(value), known))


def _kind(value: object) -> str:
    return {list: "a list", str: "text", int: "a number", float: "a number", bool: "true or false"}.get(
        type(value), type(value).__name__
    )
