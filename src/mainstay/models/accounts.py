"""Every provider that can be reached here, and the adapters that speak to them, made on first use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from mainstay.core.errors import ConfigError
from mainstay.core.secret import Secret
from mainstay.models.config import ModelsConfig, ProviderConfig
from mainstay.models.providers import PROVIDER_KINDS, HttpProviderSettings
from mainstay.models.types import Capability, ChatProvider, Price
from mainstay.models.vendors import OLLAMA, VENDORS, Vendor, ollama_url

_NO_KEY: Final = ("",)


@dataclass(frozen=True, slots=True)
class Account:
    """A provider: where it is, its keys' variables (one empty name when it needs none), what it takes and costs.

    `price_id`: a genai-prices id or the base URL, to look list prices up; None: it has none. `rules`: the vendor's
    or kind's name, to look up what single models lack.
    """

    name: str
    kind: str
    base_url: str
    key_envs: tuple[str, ...]
    price: Price | None
    price_id: str | None
    rules: str
    max_tokens_field: str = "max_tokens"
    idle_timeout_s: float = 30.0
    connect_timeout_s: float = 5.0
    options: Mapping[str, str] = field(default_factory=dict)
    lacks: frozenset[Capability] = frozenset()

    def credential(self, key: int) -> str | None:
        """What tells this key from the others; None when it is the only one."""
        return f"key {key + 1}" if len(self.key_envs) > 1 else None


class Accounts:
    """Looks providers up by name: the project file's first, then vendors whose key is set, and Ollama."""

    def __init__(self, config: ModelsConfig, environment: Mapping[str, str]) -> None:
        self._config = config
        self._environment = environment
        self._providers: dict[tuple[str, int], ChatProvider] = {}
        self._retired: list[ChatProvider] = []

    def knows(self, name: str) -> bool:
        return name in self._config.providers or name == OLLAMA or self._has_key(name)

    def vendors(self) -> Iterator[Vendor]:
        """Those whose key is set, but for the ones that the project file sets up."""
        return (
            vendor
            for vendor in VENDORS.values()
            if self._has_key(vendor.name) and vendor.name not in self._config.providers
        )

    def get(self, name: str) -> Account:
        """The provider of a name that is known."""
        configured = self._config.providers.get(name)
        if configured is not None:
            account = _configured(configured)
        elif name == OLLAMA:
            account = Account(OLLAMA, "ollama", ollama_url(self._environment), _NO_KEY, None, None, OLLAMA)
        else:
            account = _of_vendor(VENDORS[name])
        return self._with_contexts(account) if account.kind == "ollama" else account

    def provider(self, account: Account, key: int) -> ChatProvider:
        """The adapter that uses the account's key of that number. Raises ConfigError for a variable not set."""
        made = self._providers.get((account.name, key))
        if made is None:
            settings = HttpProviderSettings(
                name=account.name,
                base_url=account.base_url,
                api_key=self._secret(account.name, account.key_envs[key]) if account.key_envs[key] else None,
                max_tokens_field=account.max_tokens_field,
                connect_timeout_s=account.connect_timeout_s,
                idle_timeout_s=account.idle_timeout_s,
                options=self._options(account),
            )
            made = self._providers[account.name, key] = PROVIDER_KINDS.get(account.kind)(settings)
        return made

    def check_keys(self, account: Account) -> None:
        """Raises ConfigError for a variable of the account that is not set."""
        for variable in filter(None, account.key_envs):
            self._secret(account.name, variable)

    def adopt(self, before: Accounts) -> None:
        """Take over the adapters of providers that are as they were before; let the others end what they do.

        Their idle connections close by themselves.
        """
        self._retired = before._retired
        for (name, key), provider in before._providers.items():
            if self.knows(name) and self.get(name) == before.get(name):
                self._providers[name, key] = provider
            else:
                self._retired.append(provider)

    async def close(self) -> None:
        for provider in (*self._providers.values(), *self._retired):
            await provider.close()
        self._providers.clear()
        self._retired.clear()

    def _with_contexts(self, account: Account) -> Account:
        """Ollama loads a model with the context it is told, else with its own, and cuts what is longer."""
        contexts = {
            f"num_ctx.{model.model}": str(model.context_tokens)
            for model in self._config.models.values()
            if model.provider == account.name and model.context_tokens is not None
        }
        return replace(account, options={**account.options, **contexts})

    def _has_key(self, name: str) -> bool:
        return name in VENDORS and bool(self._environment.get(VENDORS[name].key_env))

    def _options(self, account: Account) -> dict[str, str | Secret]:
        options: dict[str, str | Secret] = {}
        for name, value in account.options.items():
            if name.endswith("_env"):
                options[name.removesuffix("_env")] = self._secret(account.name, value)
            else:
                options[name] = value
        return options

    def _secret(self, provider: str, variable: str) -> Secret:
        value = self._environment.get(variable)
        if not value:
            raise ConfigError(
                f"Provider {provider!r} needs the environment variable {variable}.",
                fix=f"Set it: export {variable}=…",
            )
        return Secret(value)


def _configured(config: ProviderConfig) -> Account:
    vendor = VENDORS.get(config.name)
    if vendor is None or config.base_url:
        return Account(
            name=config.name,
            kind=config.kind,
            base_url=config.base_url,
            key_envs=config.api_key_envs or _NO_KEY,
            price=config.price,
            price_id=config.base_url or _PRICE_IDS.get(config.kind),
            rules=config.kind,
            max_tokens_field=config.max_tokens_field or "max_tokens",
            idle_timeout_s=config.idle_timeout_s,
            connect_timeout_s=config.connect_timeout_s,
            options=config.options,
            lacks=config.lacks,
        )
    return Account(
        name=config.name,
        kind=config.kind,
        base_url=vendor.base_url,
        key_envs=config.api_key_envs or (vendor.key_env,),
        price=config.price,
        price_id=vendor.price_id,
        rules=vendor.name,
        max_tokens_field=config.max_tokens_field or vendor.max_tokens_field,
        idle_timeout_s=config.idle_timeout_s,
        connect_timeout_s=config.connect_timeout_s,
        options={**vendor.options, **config.options},
        lacks=vendor.lacks | config.lacks,
    )


_PRICE_IDS: Final[Mapping[str, str]] = {"anthropic": "anthropic", "gemini": "google", "bedrock": "aws"}
"""Names in genai-prices of kinds that know their own address."""


def _of_vendor(vendor: Vendor) -> Account:
    return Account(
        name=vendor.name,
        kind=vendor.kind,
        base_url=vendor.base_url,
        key_envs=(vendor.key_env,),
        price=None,
        price_id=vendor.price_id,
        rules=vendor.name,
        max_tokens_field=vendor.max_tokens_field,
        options=vendor.options,
        lacks=vendor.lacks,
    )
