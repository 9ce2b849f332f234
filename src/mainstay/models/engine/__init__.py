"""The local engine: llama.cpp in processes of its own, so that its crashes are not the gateway's.

`Engines` knows which models are loaded; `EngineProcess` is one process; `worker` is what runs in it.
`running_engines` finds those of every gateway on this machine, `read_facts` tells what a GGUF file says of itself.
"""

from mainstay.models.engine.facts import GgufFacts, read_facts, usable_context_tokens
from mainstay.models.engine.frames import Kind
from mainstay.models.engine.manager import Engines, EngineState, Lease, LocalModel
from mainstay.models.engine.process import EngineProcess, Port
from mainstay.models.engine.running import RunningEngine, running_engines

__all__ = [
    "EngineProcess",
    "EngineState",
    "Engines",
    "GgufFacts",
    "Kind",
    "Lease",
    "LocalModel",
    "Port",
    "RunningEngine",
    "read_facts",
    "running_engines",
    "usable_context_tokens",
]
