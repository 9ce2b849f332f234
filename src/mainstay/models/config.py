"""The `providers:` and `models:` sections of the project file.

providers:
  vllm: {kind: openai, base_url: http://gpu-1:8000/v1, api_key_env: VLLM_KEY, models: [qwen3-32b]}
models:
  fast: {provider: vllm, model: qwen3-32b, price: {input: 0.10, output: 0.40}}   # USD per million tokens
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import urlsplit

from mainstay.core.errors import did_you_mean
from mainstay.core.yamlfile import KeyPath, YamlFile
from mainstay.models.types import Price

_PROVIDER_KEYS = frozenset({"kind", "base_url", "api_key_env", "models", "price", "idle_timeout_s"})
_ROUTE_KEYS = frozenset({"provider", "model", "price", "context_tokens"})
_PRICE_KEYS = frozenset({"input", "output", "cached_input"})
_RESERVED_NAMES = frozenset({"local"})


@dataclass(frozen=True, slots=True)
class ProviderConfig:
    """A provider by hand. `api_key_env` names the variable that holds its key; None: it needs no key."""

    name: str
    kind: str
    base_url: str
    api_key_env: str | None = None
    models: tuple[str, ...] = ()
    price: Price | None = None
    idle_timeout_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Route:
    """A name of ours for a provider's model."""

    alias: str
    provider: str
    model: str
    price: Price | None = None
    context_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class ModelsConfig:
    providers: Mapping[str, ProviderConfig] = field(default_factory=dict)
    routes: Mapping[str, Route] = field(default_factory=dict)


def read_models_config(file: YamlFile | None) -> ModelsConfig:
    """Both sections of a project file. Raises ConfigError with the line of a mistake."""
    if file is None or not isinstance(file.data, dict):
        return ModelsConfig()
    reader = _Reader(file)
    providers = {name: reader.provider(name, value) for name, value in reader.section("providers").items()}
    routes = {name: reader.route(name, value) for name, value in reader.section("models").items()}
    return ModelsConfig(providers, routes)


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
        models = body.get("models") or []
        if not isinstance(models, list):
            raise self._file.error((*at, "models"), "must be a list of model names.")
        return ProviderConfig(
            name=name,
            kind=self._text(at, body, "kind", "openai"),
            base_url=self._url(at, body),
            api_key_env=self._text(at, body, "api_key_env", "") or None,
            models=tuple(str(model) for model in models),
            price=self._price(at, body),
            idle_timeout_s=float(self._amount((*at, "idle_timeout_s"), body.get("idle_timeout_s", 30))),
        )

    def route(self, alias: str, value: object) -> Route:
        at: KeyPath = ("models", alias)
        body = self._mapping(at, value, _ROUTE_KEYS)
        context = body.get("context_tokens")
        if context is not None and (not isinstance(context, int) or context < 1):
            raise self._file.error((*at, "context_tokens"), "must be a whole number of tokens.")
        return Route(
            alias=alias,
            provider=self._text(at, body, "provider"),
            model=self._text(at, body, "model"),
            price=self._price(at, body),
            context_tokens=context,
        )

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

    def _url(self, at: KeyPath, body: Mapping[str, Any]) -> str:
        url = self._text(at, body, "base_url")
        if not url.startswith(("http://", "https://")):
            raise self._file.error((*at, "base_url"), "must start with http:// or https://.")
        if "@" in urlsplit(url).netloc:  # the address is shown to callers in lists and errors
            raise self._file.error(
                (*at, "base_url"), "holds a user or password.", fix="Put the key in `api_key_env`."
            )
        return url.rstrip("/")

    def _price(self, at: KeyPath, body: Mapping[str, Any]) -> Price | None:
        if "price" not in body:
            return None
        price = self._mapping((*at, "price"), body["price"], _PRICE_KEYS)
        amounts = {key: self._amount((*at, "price", key), price.get(key)) for key in ("input", "output")}
        cached = self._amount((*at, "price", "cached_input"), price.get("cached_input", amounts["input"]))
        return Price(
            input_nusd=float(amounts["input"] * 1000),  # a dollar per million is 1000 nano-dollars each
            output_nusd=float(amounts["output"] * 1000),
            cached_input_nusd=float(cached * 1000),
            source=f"{self._file.path.name}, line {self._file.line((*at, 'price'))}",
            as_of="",
        )

    def _amount(self, at: KeyPath, value: object) -> Decimal:
        try:
            amount = Decimal(str(value))
        except InvalidOperation:
            amount = Decimal(-1)
        if not amount.is_finite() or amount < 0:
            raise self._file.error(at, "must be a number that is not negative.")
        return amount
