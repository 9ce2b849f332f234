"""What can be asked: routes and models with their targets, what they cost and can do, and how each does now."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from mainstay.core.money import show_usd, usd_text
from mainstay.models.types import Capability, Price, RoutePolicy, Target
from mainstay.services import LocalModel, Offered, by_target
from mainstay.serving import TargetView
from mainstay.web.formats import duration_text

SHOWN_MAX = 20
"""Rows of one provider; vendors list more than a hundred models."""
FOUND_MAX = 200
"""Rows of one provider once the list was narrowed."""
TOKENS = 1_000_000
_WORDS = re.compile(r'"([^"]+)"|([^\s"]+)')

FEATURES: Mapping[Capability, str] = {
    "tools": "tools",
    "parallel_tool_calls": "parallel tools",
    "json_schema": "JSON schema",
    "json_object": "JSON",
    "images": "images",
    "files": "files",
    "audio": "audio",
    "reasoning": "reasoning",
    "logprobs": "logprobs",
    "n": "several answers",
}
SETTINGS: Mapping[Capability, str] = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "stop": "stop words",
    "seed": "seed",
    "penalties": "penalties",
    "logit_bias": "logit bias",
}
POLICIES: Mapping[RoutePolicy, str] = {
    "weighted": "shares requests by weight",
    "ordered": "asks the first that can answer",
    "latency": "asks the quickest",
    "cheapest": "asks the cheapest that can answer",
}


@dataclass(frozen=True, slots=True)
class State:
    """Whether a target may be called now. `condition` is good, risk or bad, for colour and icon."""

    word: str
    condition: str


@dataclass(frozen=True, slots=True)
class PriceText:
    """Dollars per million tokens. `source` None: it runs on this machine; `more` is what three figures leave out."""

    input: str
    output: str
    cached: str
    source: str | None
    more: str = ""

    @property
    def origin(self) -> str:
        return (self.source or "runs on this machine") + self.more


@dataclass(frozen=True, slots=True)
class TargetLine:
    """One row: a name, or one of several targets behind it. `now` None: not called lately.

    `key` names what has one breaker; several rows may share it. `weight` None: it is no route's, or has no say there.
    """

    key: str
    name: str
    target: Target
    weight: str | None
    can: tuple[str, ...]
    cannot_set: tuple[str, ...]
    price: PriceText | None
    now: TargetView | None
    local: LocalModel | None

    @property
    def goes_to(self) -> str:
        """`openai/gpt-4o-mini, key 2`; what its name does not say already."""
        where = f"{self.target.provider.name}/{self.target.model}"
        return where if self.target.credential is None else f"{where}, {self.target.credential}"

    @property
    def settings(self) -> str:
        if not self.cannot_set:
            return "all settings"
        if len(self.cannot_set) == len(SETTINGS):
            return "no settings"
        return f"all settings but {', '.join(self.cannot_set)}"


@dataclass(frozen=True, slots=True)
class RouteBlock:
    """A route of the project file; `problem` says why it has no targets now."""

    name: str
    policy: str | None
    how: tuple[str, ...]
    lines: tuple[TargetLine, ...]
    problem: str | None


@dataclass(frozen=True, slots=True)
class Unresolved:
    """A model that stands for nothing now."""

    name: str
    problem: str


@dataclass(frozen=True, slots=True)
class ProviderBlock:
    """The models of one provider. `hidden` more are there than are shown."""

    name: str
    lines: tuple[TargetLine, ...]
    unresolved: tuple[Unresolved, ...] = ()
    hidden: int = 0


@dataclass(frozen=True, slots=True)
class ModelsView:
    """`configured`: whether there is anything but what needs no set-up."""

    text: str
    provider: str
    routes: tuple[RouteBlock, ...]
    providers: tuple[ProviderBlock, ...]
    route_count: int
    model_count: int
    configured: bool

    @property
    def narrowed(self) -> bool:
        return bool(self.text or self.provider)

    @property
    def found(self) -> bool:
        return bool(self.routes or self.providers)


def models_view(
    found: Sequence[Offered],
    views: Iterable[TargetView],
    local: Mapping[str, LocalModel],
    text: str = "",
    provider: str = "",
) -> ModelsView:
    """`text`: words, or "quoted words", that each row's name, provider, state or abilities must have; `provider`: only
    its models."""
    states = by_target(views)
    words = [phrase or word for phrase, word in _WORDS.findall(text.lower())]
    routes: list[RouteBlock] = []
    blocks: dict[str, ProviderBlock] = {}
    for each in found:
        lines = _lines(each, states, local)
        if each.kind == "route":
            if not provider and _fits(words, _route_text(each, lines)):
                routes.append(_route(each, lines))
        elif provider in ("", each.info.provider):
            block = blocks.setdefault(each.info.provider, ProviderBlock(each.info.provider, ()))
            kept = tuple(line for line in lines if _fits(words, _line_text(each, line)))
            if each.problem is not None and _fits(words, f"{each.info.name} {each.info.provider}".lower()):
                lost = Unresolved(each.info.name, each.problem)
                block = replace(block, unresolved=(*block.unresolved, lost))
            blocks[each.info.provider] = replace(block, lines=(*block.lines, *kept))
    shown_max = FOUND_MAX if text or provider else SHOWN_MAX
    providers = [_cut(b, shown_max) for b in blocks.values() if b.lines or b.unresolved]
    route_count = sum(each.kind == "route" for each in found)
    return ModelsView(
        text=text,
        provider=provider,
        routes=tuple(routes),
        providers=tuple(providers),
        route_count=route_count,
        model_count=len(found) - route_count,
        configured=any(each.info.name != "local/extractive" for each in found),
    )


def state_of(view: TargetView) -> State:
    """In words. Times are whole seconds, so that a live page changes once a second."""
    wait = None if view.retry_in_s is None else _seconds(max(1, round(view.retry_in_s)))
    match view.availability:
        case "closed":
            return State("in service", "good")
        case "half_open":
            return State("breaker half open: one call tries it", "risk")
        case "open":
            return State(f"breaker open for {wait}" if wait else "breaker open", "bad")
        case "limited":
            return State(f"rate-limited for {wait}" if wait else "rate-limited", "risk")
        case "key_out":
            return State(f"key refused, out for {wait}" if wait else "key refused", "bad")


def price_text(price: Price | None) -> PriceText | None:
    if price is None:
        return None
    more = [
        f"above {t.above_input_tokens:,} input tokens {_usd(t.input_nusd)} in, {_usd(t.output_nusd)} out"
        for t in price.tiers
    ]
    if price.request_nusd:
        more.append(f"{show_usd(round(price.request_nusd))} more for each request")
    first = "from " if price.tiers else ""
    return PriceText(
        input=first + _usd(price.input_nusd),
        output=first + _usd(price.output_nusd),
        cached=first + _usd(price.cached_input_nusd),
        source=None if price.source == "local" else f"{price.source}, in force on {price.as_of}",
        more="".join(f"; {each}" for each in more),
    )


def key_of(provider: str, model: str, credential: str | None) -> str:
    """A short name of what has one breaker, for the page's cells that change."""
    text = "\n".join((provider, model, credential or ""))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _lines(
    each: Offered, states: Mapping[tuple[str, str, str | None], TargetView], local: Mapping[str, LocalModel]
) -> tuple[TargetLine, ...]:
    route = each.route
    if route is None:
        return ()
    weighted = each.kind == "route" and route.policy == "weighted"
    total = sum(routed.weight for routed in route.targets)
    lines = []
    for routed in route.targets:
        target, can = routed.target, routed.target.capabilities
        key = (target.provider.name, target.model, target.credential)
        lines.append(
            TargetLine(
                key=key_of(*key),
                name=target.public_name,
                target=target,
                weight=_weight(routed.weight, total) if weighted else None,
                can=tuple(word for name, word in FEATURES.items() if name in can),
                cannot_set=tuple(word for name, word in SETTINGS.items() if name not in can),
                price=price_text(target.price),
                now=states.get(key),
                local=local.get(f"local/{target.model}") if target.provider.name == "local" else None,
            )
        )
    return tuple(lines)


def _weight(weight: float, total: float) -> str:
    if not weight or not total:
        return "fallback only"
    return f"{weight / total:.0%} of requests".replace("%", " %")


def _route(each: Offered, lines: tuple[TargetLine, ...]) -> RouteBlock:
    route = each.route
    if route is None:
        return RouteBlock(each.info.name, None, (), (), each.problem)
    how = [POLICIES[route.policy]]
    if route.sticky:
        how.append("a conversation stays with its target")
    how.append(f"at most {route.attempts_max} attempts in {_seconds(route.deadline_s)}")
    if route.first_token_timeout_s is not None:
        how.append(f"the first token within {_seconds(route.first_token_timeout_s)}")
    if route.cache_ttl_s is not None:
        how.append(f"answers are cached for {_seconds(route.cache_ttl_s)}")
    if route.context_fallback is not None:
        how.append(f"longer prompts go to {route.context_fallback}")
    return RouteBlock(route.name, route.policy, tuple(how), lines, None)


def _cut(block: ProviderBlock, shown_max: int) -> ProviderBlock:
    """Those in use come first when not all are shown."""
    if len(block.lines) <= shown_max:
        return block
    ranked = sorted(block.lines, key=lambda line: line.now is None)  # stable: else as the catalogue has them
    return replace(block, lines=tuple(ranked[:shown_max]), hidden=len(block.lines) - shown_max)


def _fits(words: Sequence[str], text: str) -> bool:
    return all(word in text for word in words)


def _route_text(each: Offered, lines: Iterable[TargetLine]) -> str:
    own = f"{each.info.name} route {each.route.policy if each.route else 'problem'} ".lower()
    return own + " ".join(_line_text(each, line) for line in lines)


def _line_text(each: Offered, line: TargetLine) -> str:
    said = [each.info.name, line.name, line.goes_to, each.info.note, *line.can]
    said.append("not called" if line.now is None else state_of(line.now).word)
    said.append("unknown price" if line.price is None else "")
    if line.local is not None:
        said.append(line.local.state)
    return " ".join(said).lower()


def _usd(per_token_nusd: float) -> str:
    """Per million tokens, exactly as it is listed: `$0.075`, `$2.50`, `$0`."""
    whole, _, cents = usd_text(round(per_token_nusd * TOKENS)).partition(".")
    return f"${whole}.{cents:0<2}" if cents or whole != "0" else "$0"


def _seconds(seconds: float) -> str:
    """`7 s`, `4 min 10 s`, `10 min`: no decimals where there are none."""
    text = duration_text(seconds * 1000).replace(".00 s", " s").replace(".0 s", " s")
    return text.removesuffix(" 0 s") if " min " in text else text
