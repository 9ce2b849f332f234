"""The catalogue: every model name that can be asked, and what it stands for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from mainstay.core.clock import Clock, now_us
from mainstay.core.errors import ConfigError, did_you_mean
from mainstay.models.accounts import Account, Accounts
from mainstay.models.capabilities import ALL
from mainstay.models.config import ModelConfig, ModelsConfig, RouteConfig
from mainstay.models.engine import Engines
from mainstay.models.errors import UnknownModel
from mainstay.models.install import installed
from mainstay.models.limitations import model_lacks
from mainstay.models.prices import (
    LOCAL,
    check_override,
    listed_context_tokens,
    listed_model,
    listed_models,
    local_price,
    price_of,
)
from mainstay.models.providers import PROVIDER_KINDS, Extractive, LlamaCpp
from mainstay.models.providers.extractive import SentenceSelector
from mainstay.models.types import (
    Capability,
    EngineSettings,
    InstalledModel,
    ModelInfo,
    Price,
    Route,
    RouteTarget,
    Target,
)
from mainstay.models.vendors import OLLAMA, VENDORS
from mainstay.models.wheels import WHEEL_MODELS

EXTRACTIVE: Final = "extractive"
_KEPT_US: Final = 60_000_000
"""How long a resolved name is kept: list prices may change with the date."""
_KEPT_MAX: Final = 4096


class Catalog:
    """Resolves names in this order: routes and models of the project file, `local/…`, `<provider>/<model>`, bare
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
        self._engine_settings = engine
        self._clock = clock
        self._environment = environment
        self._accounts = Accounts(config, environment)
        self._engines = Engines(engine)
        self._local_models: dict[tuple[InstalledModel, ...], LlamaCpp] = {}
        self._extractive = Extractive(selector)
        self._kept: dict[str, tuple[int, Route]] = {}
        PROVIDER_KINDS.load_entry_points()
        self._check()

    def checked(self, config: ModelsConfig) -> ModelsConfig:
        """The configuration, if it could take over from the present one. Raises ConfigError. Safe from any thread."""
        Catalog(config, self._models_dir, self._environment, self._engine_settings, clock=self._clock)
        return config

    def reload(self, config: ModelsConfig) -> None:
        """Resolve by another configuration from now on. Calls under way keep the targets that they have.

        Call it on the event loop, with what `checked` let through.
        """
        accounts = Accounts(config, self._environment)
        accounts.adopt(self._accounts)
        self._config, self._accounts = config, accounts
        self._kept.clear()

    def resolve(self, name: str) -> Target:
        """The first target of `name`. Raises UnknownModel, naming the nearest or what makes the name known."""
        return self.route(name).targets[0].target

    def route(self, name: str) -> Route:
        """What `name` stands for: a route of the project file, or a model with a target for each of its keys.

        Raises UnknownModel as resolve does, and ConfigError for a key's variable that is not set.
        """
        now = self._clock()
        kept = self._kept.get(name)
        if kept is not None and now - kept[0] < _KEPT_US:
            return kept[1]
        config = self._config.routes.get(name)
        if config is None:
            route = Route(name, "weighted", tuple(RouteTarget(target) for target in self._targets(name)))
        else:
            route = self._configured_route(config)
        if len(self._kept) >= _KEPT_MAX:
            self._kept.clear()
        self._kept[name] = (now, route)
        return route

    def names(self) -> list[ModelInfo]:
        """Every name that is sure to resolve now: routes, local models, configured and listed ones."""
        return [self._info(name, note) for name, note in self._named()]

    def route_targets(self) -> frozenset[str]:
        """The model names that routes of the project file go to."""
        return frozenset(target.model for route in self._config.routes.values() for target in route.targets)

    async def warm_up(self, name: str) -> None:
        """Load the engines behind `name`; nothing to do for models elsewhere."""
        for target in self.route(name).targets:
            if isinstance(target.target.provider, LlamaCpp):
                await target.target.provider.warm_up()

    async def close(self) -> None:
        await self._accounts.close()
        await self._engines.close()
        self._kept.clear()
        self._local_models.clear()

    # --- the project file, checked when it is read ---------------------------------------------------------

    def _check(self) -> None:
        for provider in self._config.providers.values():
            if provider.kind not in PROVIDER_KINDS:
                raise ConfigError(
                    f"{provider.where}: there is no provider kind {provider.kind!r}.",
                    fix=did_you_mean(provider.kind, PROVIDER_KINDS),
                )
            if provider.price is not None:
                for model in provider.models:
                    self._check_price(provider.where, provider.name, model, provider.price)
        for model_config in self._config.models.values():
            self._check_model(model_config)
        for route in self._config.routes.values():
            self._check_route(route)

    def _check_model(self, config: ModelConfig) -> None:
        if config.provider != LOCAL and not self._accounts.knows(config.provider):
            known = (*self._config.providers, *VENDORS, OLLAMA, LOCAL)
            raise ConfigError(
                f"Model {config.alias!r} goes to provider {config.provider!r}, which is not known.",
                fix=_how_to_know(config.provider) or did_you_mean(config.provider, known),
            )
        if config.price is not None and config.provider != LOCAL:
            self._check_price(config.where, config.provider, config.model, config.price)

    def _check_price(self, where: str, provider: str, model: str, price: Price) -> None:
        price_id = self._accounts.get(provider).price_id
        listed = price_of(price_id, model, self._clock()) if price_id is not None else None
        wrong = check_override(price, listed) if listed is not None else None
        if wrong is not None:
            raise ConfigError(
                f"{where}: the price of {model!r} looks like a mistake of unit: {wrong}.",
                fix="Give prices in US dollars per million tokens, e.g. {input: 0.15, output: 0.60}.",
            )

    def _check_route(self, config: RouteConfig) -> None:
        for target in config.targets:
            if target.model in self._config.routes:
                raise ConfigError(
                    f"{target.where}: {target.model!r} is a route; a route's targets are models.",
                    fix="Name that route's models here.",
                )
            self._check_name(target.where, target.model)
        fallback = config.context_fallback
        if fallback is not None and fallback not in self._config.routes:
            self._check_name(config.where, fallback)

    def _check_name(self, where: str, name: str) -> None:
        provider, slash, model = name.partition("/")
        if name in self._config.models:
            provider, slash, model = self._config.models[name].provider, "/", self._config.models[name].model
        if slash and model and self._accounts.knows(provider):
            self._accounts.check_keys(self._accounts.get(provider))
            return
        if provider == LOCAL and (model == EXTRACTIVE or model in self._installed()):
            return
        if not slash and self._vendor_that_lists(name) is not None:
            return
        how = _how_to_know(provider) if slash else None
        if provider == LOCAL:
            how = _how_to_install(model)
        raise ConfigError(
            f"{where}: no model is called {name!r}.",
            fix=how or did_you_mean(name, [*self._config.models, *self._known_names()]),
        )

    # --- names to targets ----------------------------------------------------------------------------------

    def _configured_route(self, config: RouteConfig) -> Route:
        targets: list[RouteTarget] = []
        for wanted in config.targets:
            found = self._targets(wanted.model)  # one a key: they share the weight
            targets.extend(RouteTarget(target, wanted.weight / len(found)) for target in found)
        return Route(
            name=config.name,
            policy=config.policy,
            targets=tuple(targets),
            sticky=config.sticky,
            attempts_max=config.attempts_max,
            attempts_per_target_max=config.attempts_per_target_max,
            deadline_s=config.deadline_s,
            first_token_timeout_s=config.first_token_timeout_s,
            cache_ttl_s=config.cache_ttl_s,
            context_fallback=config.context_fallback,
        )

    def _targets(self, name: str) -> tuple[Target, ...]:
        config = self._config.models.get(name)
        if config is not None:
            return self._of(name, config.provider, config.model, config)
        provider, slash, model = name.partition("/")
        if slash and (provider == LOCAL or self._accounts.knows(provider)):
            return self._of(name, provider, model, None)
        vendor = None if slash else self._vendor_that_lists(name)
        if vendor is not None:
            return self._of(name, vendor, name, None)
        raise UnknownModel(name, self._known_names(), fix=_how_to_know(provider if slash else name))

    def _vendor_that_lists(self, name: str) -> str | None:
        for vendor in self._accounts.vendors():
            if vendor.price_id and listed_model(vendor.price_id, name) is not None:
                return vendor.name
        return None

    def _of(
        self, public_name: str, provider: str, model: str, config: ModelConfig | None
    ) -> tuple[Target, ...]:
        if provider == LOCAL:
            return (self._local(public_name, model, config),)
        account = self._accounts.get(provider)
        price = config.price if config is not None else None
        context = config.context_tokens if config is not None else None
        if context is None and account.price_id is not None:
            context = listed_context_tokens(account.price_id, model)
        return tuple(
            Target(
                public_name=public_name,
                provider=self._accounts.provider(account, key),
                model=model,
                price=price or self._default_price(account, model),
                context_tokens=context,
                max_output_tokens=config.max_output_tokens if config is not None else None,
                supports=_supports(account, model, config),
                credential=account.credential(key),
            )
            for key in range(len(account.key_envs))
        )

    def _default_price(self, account: Account, model: str) -> Price | None:
        if account.price is not None:
            return account.price
        if account.name == OLLAMA and account.name not in self._config.providers:
            return local_price(self._clock())
        return price_of(account.price_id, model, self._clock()) if account.price_id is not None else None

    def _local(self, public_name: str, model: str, config: ModelConfig | None) -> Target:
        provider: Extractive | LlamaCpp = self._extractive
        if model != EXTRACTIVE:
            provider = self._engine_of(public_name, model)
        context = provider.context_tokens if isinstance(provider, LlamaCpp) else None
        lacks = config.lacks if config is not None else frozenset[Capability]()
        supports = config.supports if config is not None else None
        if supports is not None or lacks:
            supports = (ALL if supports is None else supports) - lacks
        return Target(
            public_name, provider, model, local_price(self._clock()), context, context, supports=supports
        )

    def _engine_of(self, public_name: str, name: str) -> LlamaCpp:
        """An adapter is its base with that adapter chosen: both are served by the same process."""
        found = self._installed()
        model = found.get(name)
        if model is None:
            raise UnknownModel(public_name, self._known_names(), fix=_how_to_install(name))
        base = model if model.base is None else found[model.base]
        adapters = [other for other in found.values() if other.base == base.name]
        files = (model, base, *adapters)
        if files not in self._local_models:  # another file under the same name is another model
            self._local_models[files] = self._engine(model, base, adapters)
        return self._local_models[files]

    def _engine(
        self, model: InstalledModel, base: InstalledModel, adapters: list[InstalledModel]
    ) -> LlamaCpp:
        assert base.weights is not None
        return LlamaCpp(
            base.weights,
            self._engine_settings,
            self._engines,
            model=base.name,
            adapters={other.name: other.weights for other in adapters if other.weights is not None},
            adapter=None if model.base is None else model.name,
        )

    def _installed(self) -> dict[str, InstalledModel]:
        """What the engine can run, by name; an adapter only with its base."""
        found = {m.name: m for m in installed(self._models_dir) if m.weights is not None}
        return {name: m for name, m in found.items() if m.base is None or m.base in found}

    # --- lists ---------------------------------------------------------------------------------------------

    def _named(self) -> Iterator[tuple[str, str]]:
        for route in self._config.routes.values():
            yield route.name, f"{route.policy} route over {', '.join(t.model for t in route.targets)}"
        for config in self._config.models.values():
            yield config.alias, f"route to {config.provider}/{config.model}"
        yield f"{LOCAL}/{EXTRACTIVE}", "answers with sentences of the sources; runs here"
        for model in self._installed().values():
            what = "runs here" if model.base is None else f"adapter of {model.base}, runs here"
            yield f"{LOCAL}/{model.name}", f"{what}; {model.bytes / 1e6:.0f} MB"
        for provider in self._config.providers.values():
            account = self._accounts.get(provider.name)
            note = f"at {account.base_url}" if account.base_url else f"by {account.kind}"
            for name in provider.models:
                yield f"{provider.name}/{name}", note
        for vendor in self._accounts.vendors():
            for name in listed_models(vendor.price_id) if vendor.price_id else ():
                yield f"{vendor.name}/{name}", f"at {vendor.base_url}"

    def _known_names(self) -> list[str]:
        return [name for name, _ in self._named()]

    def _info(self, name: str, note: str) -> ModelInfo:
        if name in self._config.routes:
            return ModelInfo(name, "route", None, None, note)
        config = self._config.models.get(name)
        provider, _, model = name.partition("/")
        if config is not None:
            provider, model = config.provider, config.model
        if provider == LOCAL:
            context = None if model == EXTRACTIVE else self._engine_settings.context_tokens
            return ModelInfo(name, provider, local_price(self._clock()), context, note)
        account = self._accounts.get(provider)
        price = config.price if config is not None else None
        context = config.context_tokens if config is not None else None
        if context is None and account.price_id is not None:
            context = listed_context_tokens(account.price_id, model)
        return ModelInfo(name, provider, price or self._default_price(account, model), context, note)


def _supports(account: Account, model: str, config: ModelConfig | None) -> frozenset[Capability] | None:
    """What the target supports; None when nothing narrows what its provider can."""
    lacks = config.lacks if config is not None else frozenset[Capability]()
    if config is not None and config.supports is not None:
        return config.supports - lacks
    lacks = lacks | account.lacks | model_lacks(account.rules, model)
    return ALL - lacks if lacks else None


def _how_to_know(provider: str) -> str | None:
    vendor = VENDORS.get(provider)
    return f"Set {vendor.key_env} to use {vendor.name}." if vendor is not None else None


def _how_to_install(model: str) -> str | None:
    return f"Run `mainstay models add {model}`." if model in WHEEL_MODELS else None
