"""What single models are known to lack beyond what their vendors do. Data alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from mainstay.models.types import Capability

Lacks = frozenset[Capability]

_OPENAI_REASONING: Final[Lacks] = frozenset({"temperature", "top_p", "penalties", "logprobs", "logit_bias"})
_CLAUDE: Final = frozenset({"anthropic", "bedrock"})
_MODEL_LACKS: Final[Sequence[tuple[frozenset[str], re.Pattern[str], Lacks]]] = (
    # "Reasoning models": sampling is fixed. From gpt-5.1 on it is free while reasoning is off, so those are asked.
    (
        frozenset({"openai", "azure"}),
        re.compile(r"(o1|o3|o4|gpt-5(-mini|-nano|-pro|-codex)?)(-(mini|pro|preview))?(-20\d\d-\d\d-\d\d)?"),
        _OPENAI_REASONING,
    ),
    (
        frozenset({"openai", "azure"}),
        re.compile(r"(o3|o4-mini)(-pro)?(-20\d\d-\d\d-\d\d)?"),
        frozenset({"stop"}),
    ),
    (
        frozenset({"openai", "azure"}),
        re.compile(r"(gpt-3\.5|gpt-4)(?!.*audio).*|chatgpt-4o.*"),
        frozenset({"reasoning", "audio"}),
    ),
    (
        frozenset({"xai"}),
        re.compile(r"grok-4(?!.*non-reasoning).*|grok-code.*"),
        frozenset({"penalties", "stop"}),
    ),
    # Sampling is fixed from Claude Opus 4.7 on; structured output began with Sonnet 4.5 and Opus 4.1.
    (
        _CLAUDE,
        re.compile(r"(.*[./])?claude-(opus-4-[78]|(opus|sonnet|haiku|fable)-[5-9]).*"),
        frozenset({"temperature", "top_p", "top_k"}),
    ),
    (
        _CLAUDE,
        re.compile(r"(.*[./])?claude-(3.*|(opus|sonnet)-4(-0|-2025\d{4}|@.*)?(-v\d.*)?)"),
        frozenset({"json_schema"}),
    ),
)
"""(vendors or kinds, model names, what such a model lacks). Small on purpose: unknown models are assumed to take
what their vendor takes; `lacks` and `supports` in the project file say more."""


def model_lacks(vendor: str, model: str) -> Lacks:
    """What is known to be missing in a model beyond what its vendor lacks."""
    found = (lacks for vendors, names, lacks in _MODEL_LACKS if vendor in vendors and names.fullmatch(model))
    return frozenset().union(*found)
