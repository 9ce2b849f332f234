"""The catalogue: every model name that can be asked, and what it resolves to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from mainstay.core.clock import Clock, now_us
from mainstay.core.errors import ConfigError
from mainstay.core.secret import Secret
from mainstay.models.config import ModelsConfig, ProviderConfig
from mainstay.models.errors import UnknownModel
from mainstay.models.install import installed
from mainstay.models.prices import (
    LOCAL,
    listed_context_tokens,
    listed_model,
    listed_models,
    local_price,
    price_of,
)
from mainstay.models.providers import PROVIDER_KINDS, Extractive, HttpProviderSettings, LlamaCpp
from mainstay.models.types import ChatProvider, EngineSettings, ModelInfo, Price, SentenceSelector, Target
from mainstay.models.vendors import OLLAMA, VENDORS, Vendor, ollama_url
from mainstay.models.wheels import WHEEL_MODELS

EXTRACTIVE: Final = "extractive"


class Catalog:
    """Resolves names in this order: routes of the project file, `local/…`, `<provider>/<model>`, bare
    names that a vendor with a key lists. Providers and engines are made once, on first use.

    Resolving does no network I/O. Use from one event loop at a time; `close` ends connections and engines.
    """

    def __init__(
        self,
        config: ModelsConfig,
        models_dir: Path,
        environment: Mapping[str, str],
        engine: EngineSettings,
        selector: SentenceSelector | None = None,
        clock: Clock = now_us,
    ) -> None:
        self._config = config
        self._models_dir = models_dir
        self._environment = environment
        self._engine = engine
        self._clock = clock
        self._providers: dict[str, ChatProvider] = {}
        self._engines: dict[str, LlamaCpp] = {}
        self._extractive = Extractive(selector)
        PROVIDER_KINDS.load_entry_points()
        self._check_routes()

    def resolve(self, name: str) -> Target:
        """What `name` stands for. Raises UnknownModel, naming the nearest or what makes the name known."""
        route = self._config.routes.get(name)
        if route is not None:
            return self._target(
                name, route.provider, route.model, price=route.price, context_tokens=route.context_tokens
            )
        provider, slash, model = name.partition("/")
        if slash and self._knows_provider(provider):
            return self._target(name, provider, model)
        for vendor in self._vendors_with_key():
            if not slash and vendor.price_id and listed_model(vendor.price_id, name) is not None:
                return self._target(name, vendor.name, name)
        raise UnknownModel(name, self._known_names(), fix=self._how_to_know(provider if slash else name))

    def names(self) -> list[ModelInfo]:
        """Every name that is sure to resolve now: routes, local models, configured and listed ones."""
        return [self._info(name, note) for name, note in self._named()]

    async def warm_up(self, name: str) -> None:
        """Load the engine behind `name`; nothing to do for models elsewhere."""
        provider = self.resolve(name).provider
        if isinstance(provider, LlamaCpp):
            await provider.warm_up()

    async def close(self) -> None:
        for provider in (*self._providers.values(), *self._engines.values()):
            await provider.close()
        self._providers.clear()
        self._engines.clear()

    def _check_routes(self) -> None:
        for route in self._config.routes.values():
            if route.provider != LOCAL and not self._knows_provider(route.provider):
                known = (*self._config.providers, *VENDORS, OLLAMA, LOCAL)
                raise ConfigError(
                    f"Model {route.alias!r} goes to provider {route.provider!r}, which is not known.",
                    fix=f"Known: {', '.join(sorted(known))}. {self._how_to_know(route.provider) or ''}".strip(),
                )

    def _knows_provider(self, name: str) -> bool:
        if name in self._config.providers or name in (LOCAL, OLLAMA):
            return True
        return name in VENDORS and bool(self._environment.get(VENDORS[name].key_env))

    def _vendors_with_key(self) -> Iterator[Vendor]:
        return (vendor for vendor in VENDORS.values() if self._environment.get(vendor.key_env))

    def _target(
        self,
        public_name: str,
        provider: str,
        model: str,
        price: Price | None = None,
        context_tokens: int | None = None,
    ) -> Target:
        if provider == LOCAL:
            return self._local(public_name, model)
        price_id = self._price_id(provider)
        if price is None:
            price = self._default_price(provider, price_id, model)
        if context_tokens is None and price_id is not None:
            context_tokens = listed_context_tokens(price_id, model)
        return Target(
            public_name=public_name,
            provider=self._provider(provider),
            model=model,
            price=price,
            context_tokens=context_tokens,
            max_output_tokens=None,
        )

    def _price_id(self, provider: str) -> str | None:
        if provider in self._config.providers:
            return self._config.providers[provider].base_url
        return VENDORS[provider].price_id if provider in VENDORS else None

    def _default_price(self, provider: str, price_id: str | None, model: str) -> Price | None:
        configured = self._config.providers.get(provider)
        if configured is not None and configured.price is not None:
            return configured.price
        if configured is None and provider == OLLAMA:
            return local_price(self._clock())
        return price_of(price_id, model, self._clock()) if price_id is not None else None

    def _local(self, public_name: str, model: str) -> Target:
        provider: Extractive | LlamaCpp = self._extractive
        if model != EXTRACTIVE:
            provider = self._engine_of(public_name, model)
        context = provider.context_tokens if isinstance(provider, LlamaCpp) else None
        return Target(public_name, provider, model, local_price(self._clock()), context, context)

    def _engine_of(self, public_name: str, model: str) -> LlamaCpp:
        if model not in self._engines:
            weights = {m.name: m.weights for m in installed(self._models_dir) if m.weights is not None}
            if model not in weights:
                raise UnknownModel(public_name, self._known_names(), fix=_how_to_install(model))
            self._engines[model] = LlamaCpp(weights[model], self._engine)
        return self._engines[model]

    def _provider(self, name: str) -> ChatProvider:
        if name not in self._providers:
            settings, kind = self._provider_settings(name)
            self._providers[name] = PROVIDER_KINDS.get(kind)(settings)
        return self._providers[name]

    def _provider_settings(self, name: str) -> tuple[HttpProviderSettings, str]:
        if name in self._config.providers:
            config = self._config.providers[name]
            key = self._configured_key(config)
            settings = HttpProviderSettings(name, config.base_url, key, idle_timeout_s=config.idle_timeout_s)
            return settings, config.kind
        if name == OLLAMA:
            return HttpProviderSettings(OLLAMA, f"{ollama_url(self._environment)}/v1"), "openai"
        vendor = VENDORS[name]
        key = Secret(self._environment[vendor.key_env])
        return HttpProviderSettings(name, vendor.base_url, key, vendor.max_tokens_field), "openai"

    def _configured_key(self, config: ProviderConfig) -> Secret | None:
        if config.api_key_env is None:
            return None
        value = self._environment.get(config.api_key_env)
        if not value:
            raise ConfigError(
                f"Provider {config.name!r} needs the environment variable {config.api_key_env}.",
                fix=f"Set it: export {config.api_key_env}=…",
            )
        return Secret(value)

    def _named(self) -> Iterator[tuple[str, str]]:
        for route in self._config.routes.values():
            yield route.alias, f"route to {route.provider}/{route.model}"
        yield f"{LOCAL}/{EXTRACTIVE}", "answers with sentences of the sources; runs here"
        for model in installed(self._models_dir):
            if model.weights is not None:
                yield f"{LOCAL}/{model.name}", f"runs here; {model.bytes / 1e6:.0f} MB"
        for config in self._config.providers.values():
            for name in config.models:
                yield f"{config.name}/{name}", f"at {config.base_url}"
        for vendor in self._vendors_with_key():
            for name in listed_models(vendor.price_id) if vendor.price_id else ():
                yield f"{vendor.name}/{name}", f"at {vendor.base_url}"

    def _known_names(self) -> list[str]:
        return [name for name, _ in self._named()]

    def _info(self, name: str, note: str) -> ModelInfo:
        route = self._config.routes.get(name)
        provider, _, model = name.partition("/")
        if route is not None:
            provider, model = route.provider, route.model
        if provider == LOCAL:
            context = None if model == EXTRACTIVE else self._engine.context_tokens
            return ModelInfo(name, provider, local_price(self._clock()), context, note)
        price_id = self._price_id(provider)
        price = route.price if route is not None else None
        context = listed_context_tokens(price_id, model) if price_id is not None else None
        return ModelInfo(
            name, provider, price or self._default_price(provider, price_id, model), context, note
        )

    def _how_to_know(self, provider: str) -> str | None:
        vendor = VENDORS.get(provider)
        return f"Set {vendor.key_env} to use {vendor.name}." if vendor is not None else None


def _how_to_install(model: str) -> str | None:
    return f"Run `mainstay models add {model}`." if model in WHEEL_MODELS else None
