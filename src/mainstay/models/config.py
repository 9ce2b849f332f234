"""The `providers:`, `models:` and `routes:` sections of the project file.

providers:
  vllm: {kind: vllm, base_url: http://gpu-1:8000/v1, api_key_env: VLLM_KEY, models: [qwen3-32b]}
  openai: {api_key_envs: [OPENAI_KEY_A, OPENAI_KEY_B]}       # a vendor we know, with two keys
models:
  small: {provider: vllm, model: qwen3-32b, price: {input: 0.10, output: 0.40}}   # USD per million tokens
routes:
  fast: {policy: weighted, targets: [small, {model: openai/gpt-4o-mini, weight: 2}]}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any, Final, cast, get_args
from urllib.parse import urlsplit

from mainstay.core.errors import did_you_mean
from mainstay.core.yamlfile import KeyPath, YamlFile
from mainstay.models.capabilities import ALL
from mainstay.models.types import Capability, Price, RoutePolicy
from mainstay.models.vendors import VENDORS

NEEDS_BASE_URL: Final = frozenset({"openai", "azure", "vllm", "sglang"})
"""Kinds whose address cannot be guessed."""

_PROVIDER_KEYS = frozenset(
    {
        "kind",
        "base_url",
        "api_key_env",
        "api_key_envs",
        "models",
        "price",
        "idle_timeout_s",
        "connect_timeout_s",
        "max_tokens_field",
        "options",
        "lacks",
    }
)
_MODEL_KEYS = frozenset(
    {"provider", "model", "price", "context_tokens", "max_output_tokens", "supports", "lacks"}
)
_PRICE_KEYS = frozenset({"input", "output", "cached_input", "cache_write", "cache_write_1h"})
_ROUTE_KEYS = frozenset(
    {
        "policy",
        "targets",
        "sticky",
        "attempts",
        "attempts_per_target",
        "deadline_s",
        "first_token_timeout_s",
        "cache_ttl_s",
        "context_fallback",
    }
)
_TARGET_KEYS = frozenset({"model", "weight"})
_RESERVED_NAMES = frozenset({"local"})


@dataclass(frozen=True, slots=True)
class ProviderConfig:
    """A provider by hand. `api_key_envs` name the variables that hold its keys; none: it needs no key.

    `base_url` "": the vendor's or kind's own. `options` that end in `_env` name variables that hold secrets.
    """

    name: str
    kind: str
    base_url: str
    api_key_envs: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    price: Price | None = None
    idle_timeout_s: float = 30.0
    connect_timeout_s: float = 5.0
    max_tokens_field: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    lacks: frozenset[Capability] = frozenset()
    where: str = ""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A name of ours for a provider's model. `supports` None: what the provider does, but for `lacks`."""

    alias: str
    provider: str
    model: str
    price: Price | None = None
    context_tokens: int | None = None
    max_output_tokens: int | None = None
    supports: frozenset[Capability] | None = None
    lacks: frozenset[Capability] = frozenset()
    where: str = ""


@dataclass(frozen=True, slots=True)
class RouteTargetConfig:
    model: str
    weight: float
    where: str


@dataclass(frozen=True, slots=True)
class RouteConfig:
    """A route by hand. `where` is file, line and key, for errors."""

    name: str
    policy: RoutePolicy
    targets: tuple[RouteTargetConfig, ...]
    sticky: bool
    attempts_max: int
    attempts_per_target_max: int
    deadline_s: float
    first_token_timeout_s: float | None
    cache_ttl_s: float | None
    context_fallback: str | None
    where: str


@dataclass(frozen=True, slots=True)
class ModelsConfig:
    providers: Mapping[str, ProviderConfig] = field(default_factory=dict)
    models: Mapping[str, ModelConfig] = field(default_factory=dict)
    routes: Mapping[str, RouteConfig] = field(default_factory=dict)


def read_models_config(file: YamlFile | None) -> ModelsConfig:
    """The three sections of a project file. Raises ConfigError with the line of a mistake."""
    if file is None or not isinstance(file.data, dict):
        return ModelsConfig()
    reader = _Reader(file)
    config = ModelsConfig(
        {name: reader.provider(name, value) for name, value in reader.section("providers").items()},
        {name: reader.model(name, value) for name, value in reader.section("models").items()},
        {name: reader.route(name, value) for name, value in reader.section("routes").items()},
    )
    for name in config.routes.keys() & config.models.keys():
        raise file.error(("routes", name), "is also a name under models.", fix="Rename one.")
    return config


class _Reader:
    def __init__(self, file: YamlFile) -> None:
        self._file = file

    def section(self, name: str) -> dict[str, Any]:
        value = self._file.data.get(name) or {}
        if not isinstance(value, dict):
            raise self._file.error((name,), "must be a mapping of names.")
        return {str(key): item for key, item in value.items()}

    def provider(self, name: str, value: object) -> ProviderConfig:
        at: KeyPath = ("providers", name)
        body = self._mapping(at, value, _PROVIDER_KEYS)
        if "/" in name or name in _RESERVED_NAMES:
            raise self._file.error(at, "a provider's name has no slash and is not 'local'.")
        kind = self._text(at, body, "kind", VENDORS[name].kind if name in VENDORS else "openai")
        return ProviderConfig(
            name=name,
            kind=kind,
            base_url=self._url(at, body, needed=kind in NEEDS_BASE_URL and name not in VENDORS),
            api_key_envs=self._keys(at, body),
            models=self._words(at, body, "models"),
            price=self._price(at, body),
            idle_timeout_s=self._seconds(at, body, "idle_timeout_s", 30.0),
            connect_timeout_s=self._seconds(at, body, "connect_timeout_s", 5.0),
            max_tokens_field=self._text(at, body, "max_tokens_field", "") or None,
            options=self._options(at, body),
            lacks=self._capabilities(at, body, "lacks"),
            where=self._where(at),
        )

    def model(self, alias: str, value: object) -> ModelConfig:
        at: KeyPath = ("models", alias)
        body = self._mapping(at, value, _MODEL_KEYS)
        return ModelConfig(
            alias=alias,
            provider=self._text(at, body, "provider"),
            model=self._text(at, body, "model"),
            price=self._price(at, body),
            context_tokens=self._count(at, body, "context_tokens", "tokens"),
            max_output_tokens=self._count(at, body, "max_output_tokens", "tokens"),
            supports=self._capabilities(at, body, "supports") if "supports" in body else None,
            lacks=self._capabilities(at, body, "lacks"),
            where=self._where(at),
        )

    def route(self, name: str, value: object) -> RouteConfig:
        at: KeyPath = ("routes", name)
        body = self._mapping(at, value, _ROUTE_KEYS)
        targets = body.get("targets")
        if not isinstance(targets, list) or not targets:
            raise self._file.error((*at, "targets"), "must be a list of model names.")
        policy = self._text(at, body, "policy", "weighted")
        if policy not in get_args(RoutePolicy):
            raise self._file.error(
                (*at, "policy"),
                f"{policy!r} is not possible.",
                fix=f"Use {', '.join(get_args(RoutePolicy))}.",
            )
        sticky = body.get("sticky", False)
        if not isinstance(sticky, bool):
            raise self._file.error((*at, "sticky"), "must be true or false.")
        return RouteConfig(
            name=name,
            policy=cast(RoutePolicy, policy),
            targets=tuple(self._target((*at, "targets", n), target) for n, target in enumerate(targets)),
            sticky=sticky,
            attempts_max=self._count(at, body, "attempts", "attempts") or 3,
            attempts_per_target_max=self._count(at, body, "attempts_per_target", "attempts") or 2,
            deadline_s=self._seconds(at, body, "deadline_s", 600.0),
            first_token_timeout_s=self._optional_seconds(at, body, "first_token_timeout_s"),
            cache_ttl_s=self._optional_seconds(at, body, "cache_ttl_s"),
            context_fallback=self._text(at, body, "context_fallback", "") or None,
            where=self._where(at),
        )

    def _target(self, at: KeyPath, value: object) -> RouteTargetConfig:
        if isinstance(value, str) and value:
            return RouteTargetConfig(value, 1.0, self._where(at))
        body = self._mapping(at, value, _TARGET_KEYS)
        weight = float(self._amount((*at, "weight"), body.get("weight", 1)))
        return RouteTargetConfig(self._text(at, body, "model"), weight, self._where(at))

    def _where(self, at: KeyPath) -> str:
        return f"{self._file.path}, line {self._file.line(at)}: {'.'.join(str(part) for part in at)}"

    def _mapping(self, at: KeyPath, value: object, known: frozenset[str]) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            raise self._file.error(at, f"must be a mapping with {', '.join(sorted(known))}.")
        for key in value:
            if key not in known:
                raise self._file.error((*at, str(key)), "no such key.", fix=did_you_mean(str(key), known))
        return value

    def _text(self, at: KeyPath, body: Mapping[str, Any], key: str, default: str | None = None) -> str:
        value = body.get(key, default)
        if not isinstance(value, str) or (default is None and not value):
            raise self._file.error((*at, key), f"{key} must be given, as text.")
        return value

    def _words(self, at: KeyPath, body: Mapping[str, Any], key: str) -> tuple[str, ...]:
        value = body.get(key) or []
        if not isinstance(value, list) or not all(isinstance(word, str) and word for word in value):
            raise self._file.error((*at, key), "must be a list of names.")
        return tuple(value)

    def _keys(self, at: KeyPath, body: Mapping[str, Any]) -> tuple[str, ...]:
        one, several = self._text(at, body, "api_key_env", ""), self._words(at, body, "api_key_envs")
        if one and several:
            raise self._file.error((*at, "api_key_env"), "give either api_key_env or api_key_envs.")
        if len(set(several)) < len(several):
            raise self._file.error((*at, "api_key_envs"), "names a variable twice.")
        return several or ((one,) if one else ())

    def _options(self, at: KeyPath, body: Mapping[str, Any]) -> dict[str, str]:
        value = body.get("options") or {}
        if not isinstance(value, dict) or any(isinstance(item, list | dict) for item in value.values()):
            raise self._file.error((*at, "options"), "must be a mapping of names to single values.")
        return {
            str(key): str(item).lower() if isinstance(item, bool) else str(item)
            for key, item in value.items()
            if item is not None
        }

    def _capabilities(self, at: KeyPath, body: Mapping[str, Any], key: str) -> frozenset[Capability]:
        words = self._words(at, body, key)
        for word in words:
            if word not in ALL:
                raise self._file.error(
                    (*at, key), f"{word!r} is no capability.", fix=did_you_mean(word, sorted(ALL))
                )
        return frozenset(cast(Capability, word) for word in words)

    def _count(self, at: KeyPath, body: Mapping[str, Any], key: str, noun: str) -> int | None:
        value = body.get(key)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise self._file.error((*at, key), f"must be a whole number of {noun}.")
        return value

    def _seconds(self, at: KeyPath, body: Mapping[str, Any], key: str, default: float) -> float:
        seconds = self._optional_seconds(at, body, key)
        return default if seconds is None else seconds

    def _optional_seconds(self, at: KeyPath, body: Mapping[str, Any], key: str) -> float | None:
        if body.get(key) is None:
            return None
        seconds = float(self._amount((*at, key), body[key]))
        if seconds <= 0:
            raise self._file.error((*at, key), "must be more than 0 seconds.")
        return seconds

    def _url(self, at: KeyPath, body: Mapping[str, Any], *, needed: bool) -> str:
        url = self._text(at, body, "base_url", None if needed else "")
        if not url:
            return ""
        if not url.startswith(("http://", "https://")):
            raise self._file.error((*at, "base_url"), "must start with http:// or https://.")
        if "@" in urlsplit(url).netloc:  # the address is shown to callers in lists
            raise self._file.error(
                (*at, "base_url"), "holds a user or password.", fix="Put the key in `api_key_env`."
            )
        return url.rstrip("/")

    def _price(self, at: KeyPath, body: Mapping[str, Any]) -> Price | None:
        if "price" not in body or body["price"] is None:
            return None
        price = self._mapping((*at, "price"), body["price"], _PRICE_KEYS)
        amounts = {key: self._amount((*at, "price", key), price.get(key)) for key in ("input", "output")}
        cached = self._amount((*at, "price", "cached_input"), price.get("cached_input", amounts["input"]))
        write, write_1h = (
            self._optional_nusd((*at, "price"), price, key) for key in ("cache_write", "cache_write_1h")
        )
        return Price(
            input_nusd=float(amounts["input"] * 1000),  # a dollar per million is 1000 nano-dollars each
            output_nusd=float(amounts["output"] * 1000),
            cached_input_nusd=float(cached * 1000),
            source=f"{self._file.path.name}, line {self._file.line((*at, 'price'))}",
            as_of="",
            cache_write_nusd=write,
            cache_write_1h_nusd=write_1h,
        )

    def _optional_nusd(self, at: KeyPath, price: Mapping[str, Any], key: str) -> float | None:
        """Nano-dollars of a token, from dollars of a million."""
        return None if price.get(key) is None else float(self._amount((*at, key), price[key]) * 1000)

    def _amount(self, at: KeyPath, value: object) -> Decimal:
        try:
            amount = Decimal(str(value))
        except InvalidOperation:
            amount = Decimal(-1)
        if not amount.is_finite() or amount < 0:
            raise self._file.error(at, "must be a number that is not negative.")
        return amount
