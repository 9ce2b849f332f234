"""Models: one way to call any of them, local or remote; their names, prices, and installation.

`Catalog.resolve(name)` gives a `Target`; `target.provider.stream(call, deadline_s)` gives deltas; closing
that generator cancels the call. `install` keeps local models in the models folder.
"""

from mainstay.models import install
from mainstay.models.catalog import Catalog
from mainstay.models.config import ModelConfig, ModelsConfig, ProviderConfig, RouteConfig, read_models_config
from mainstay.models.errors import (
    ContextTooLong,
    EngineFailed,
    ProviderAuthFailed,
    ProviderBadRequest,
    ProviderError,
    ProviderModelMissing,
    ProviderQuotaExhausted,
    ProviderRateLimited,
    ProviderStreamBroken,
    ProviderTimeout,
    ProviderUnreachable,
    UnknownModel,
)
from mainstay.models.prices import cost_nusd, expected_nusd, price_of, worst_case_nusd
from mainstay.models.providers.extractive import SentenceSelector
from mainstay.models.tokens import call_token_ceiling, estimate_usage, message_token_ceiling
from mainstay.models.types import (
    ChatCall,
    ChatMessage,
    ChatProvider,
    Delta,
    EngineSettings,
    FinishReason,
    InstalledModel,
    ModelInfo,
    Price,
    PriceTier,
    Route,
    RouteTarget,
    SourcePassage,
    Target,
    Usage,
)
from mainstay.models.vendors import VENDORS, ollama_available, ollama_models

__all__ = [
    "VENDORS",
    "Catalog",
    "ChatCall",
    "ChatMessage",
    "ChatProvider",
    "ContextTooLong",
    "Delta",
    "EngineFailed",
    "EngineSettings",
    "FinishReason",
    "InstalledModel",
    "ModelConfig",
    "ModelInfo",
    "ModelsConfig",
    "Price",
    "PriceTier",
    "ProviderAuthFailed",
    "ProviderBadRequest",
    "ProviderConfig",
    "ProviderError",
    "ProviderModelMissing",
    "ProviderQuotaExhausted",
    "ProviderRateLimited",
    "ProviderStreamBroken",
    "ProviderTimeout",
    "ProviderUnreachable",
    "Route",
    "RouteConfig",
    "RouteTarget",
    "SentenceSelector",
    "SourcePassage",
    "Target",
    "UnknownModel",
    "Usage",
    "call_token_ceiling",
    "cost_nusd",
    "estimate_usage",
    "expected_nusd",
    "install",
    "message_token_ceiling",
    "ollama_available",
    "ollama_models",
    "price_of",
    "read_models_config",
    "worst_case_nusd",
]
