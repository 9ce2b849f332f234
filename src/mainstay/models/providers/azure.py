"""Azure OpenAI: the wire of OpenAI's chat completions at a resource of one's own.

Source: Microsoft Learn, "Azure OpenAI in Microsoft Foundry Models v1 API" and "REST API reference" (inference, by
deployment and api-version), "Content filtering". A call's model is the name of a deployment.
"""

from __future__ import annotations

from typing import ClassVar, Final
from urllib.parse import quote

from mainstay.core.errors import ConfigError
from mainstay.core.secret import Secret
from mainstay.models.capabilities import ALL
from mainstay.models.providers.openai import OpenAiCompatible
from mainstay.models.providers.openai_encode import Dialect
from mainstay.models.providers.registry import PROVIDER_KINDS, HttpProviderSettings
from mainstay.models.types import Capability

_V1: Final = "/openai/v1"
_COMPLETION_TOKENS_SINCE: Final = "2024-09-01"
"""The first api-version that knows `max_completion_tokens`, which reasoning models insist on."""


@PROVIDER_KINDS.register("azure")
class AzureOpenAi(OpenAiCompatible):
    """One resource. `base_url`: its endpoint, e.g. https://NAME.openai.azure.com.

    Options: `api_version`, a date such as 2024-10-21, calls by deployment; without one, or with `preview`, the v1
    API is used. `entra_token`: a bearer token of Microsoft Entra ID instead of the resource's key.
    """

    supports: frozenset[Capability] = ALL - {"top_k"}
    dialect: ClassVar[Dialect] = Dialect(developer_role=True)

    def __init__(self, settings: HttpProviderSettings) -> None:
        version = settings.options.get("api_version")
        token = settings.options.get("entra_token")
        if isinstance(version, Secret) or (token is not None and not isinstance(token, Secret)):
            raise ConfigError(
                f"Provider {settings.name!r} has an option of the wrong kind.",
                fix="api_version is text; entra_token_env names the variable that holds the token.",
            )
        if token is None and settings.api_key is None:
            raise ConfigError(
                f"Provider {settings.name!r} has neither a key nor an Entra token.",
                fix="Give api_key_env, or options: {entra_token_env: NAME}.",
            )
        self._version = None if version in (None, "", "v1") else version
        self._token = token
        super().__init__(settings)
        self._endpoint = self._base_url.removesuffix("/").removesuffix(_V1).removesuffix("/openai")

    def _dialect(self) -> Dialect:
        own = ("api_version", "entra_token")
        options = {name: value for name, value in self._settings.options.items() if name not in own}
        return Dialect.of(self.name, options, self.dialect)

    def _max_tokens_field(self) -> str:
        by_date = self._version is not None and self._version[:1].isdigit()
        old = by_date and str(self._version) < _COMPLETION_TOKENS_SINCE
        return "max_tokens" if old else "max_completion_tokens"

    def _url(self, path: str, model: str) -> str:
        if self._version is None:
            return f"{self._endpoint}{_V1}/{path}"
        if not self._version[:1].isdigit():  # `preview` and `latest` are versions of the v1 API
            return f"{self._endpoint}{_V1}/{path}?api-version={quote(self._version)}"
        deployment = quote(model, safe="")
        return f"{self._endpoint}/openai/deployments/{deployment}/{path}?api-version={quote(self._version)}"

    def _auth(self) -> dict[str, str]:
        if isinstance(self._token, Secret):
            return {"Authorization": f"Bearer {self._token.reveal()}"}
        key = self._settings.api_key
        return {} if key is None else {"api-key": key.reveal()}
