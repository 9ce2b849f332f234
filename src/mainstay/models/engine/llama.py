"""llama.cpp through xllamacpp's server object, within the engine's process.

What was measured on two shared cores with SmolLM2-135M shapes this file:
- prompts gain from a second thread (1.9 times), decoding a model this small does not, and with spinning
  OpenMP threads on a busy machine it falls from 50 to 3-16 tokens/s: small models decode on one thread,
  and OMP_WAIT_POLICY=PASSIVE is set before the library loads;
- the callback is first called after the prompt was read, unless progress is asked for: with
  `return_progress` and small batches a cancelled call stops within one batch (about 0.2 s), for about 5 %.
"""

from __future__ import annotations

import http.client
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import orjson

from mainstay.core.secret import Secret, random_token

if TYPE_CHECKING:
    from xllamacpp import Server

    from mainstay.models.engine.frames import Load

_PREFILL_BATCH_TOKENS: Final = 64
_PROMPT_CACHE_MIB: Final = 64
_SHARED_PREFIX_MIN: Final = 0.01
"""A call takes the free slot whose last prompt begins like its own by this share: an app's system prompt
is then read once, though it is short beside the passages."""
_SMALL_MODEL_BYTES: Final = 256 << 20
_COUNT_TIMEOUT_S: Final = 2.0


class Llama:
    """A loaded model. Loading takes about 0.6 s for SmolLM2 and holds the interpreter's lock all the while.

    The engine also opens an HTTP port on loopback, which alone offers its tokenizer; it takes a random key.
    Raises RuntimeError when the engine cannot load the file.
    """

    def __init__(self, load: Load) -> None:
        self._key = Secret(random_token("engine-"))
        self._server = _start(load, self._key)
        self._address: str = self._server.listening_address

    def chat(self, body: bytes, take: Callable[[dict[str, Any]], bool]) -> None:
        """One generation; `take` gets each event and stops the generation by returning True.

        Raises ValueError for a request that the engine does not accept, RuntimeError when it fails.
        """
        self._server.handle_chat_completions(orjson.loads(body), take)

    def count(self, body: bytes) -> int:
        """Tokens of a chat's prompt, as its template writes it. Raises OSError and ValueError."""
        prompt = _ask(self._address, self._key, "/apply-template", body)["prompt"]
        text = orjson.dumps({"content": prompt, "add_special": True, "parse_special": True})
        return len(_ask(self._address, self._key, "/tokenize", text)["tokens"])


def _ask(address: str, key: Secret, path: str, body: bytes) -> dict[str, Any]:
    """One request to the engine's own port. Raises OSError, and ValueError for an answer that is no success."""
    url = urlsplit(address)
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=_COUNT_TIMEOUT_S)
    headers = {"Authorization": f"Bearer {key.reveal()}", "Content-Type": "application/json"}
    try:
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        answer = orjson.loads(response.read())
    except http.client.HTTPException as error:
        raise OSError(f"the engine's port broke: {error!r}") from error
    finally:
        connection.close()
    if response.status != 200 or not isinstance(answer, dict):
        raise ValueError(f"the engine answered {response.status} to {path}: {str(answer)[:200]}")
    return answer


def _start(load: Load, key: Secret) -> Server:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = load.gguf
    params.model_alias = {load.name}
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(path, 1.0) for path in load.adapters]
    params.lora_init_without_apply = True  # each call says which adapter it wants
    params.n_parallel = load.slots
    params.n_ctx = load.slots * load.context_tokens
    params.n_batch = params.n_ubatch = _PREFILL_BATCH_TOKENS
    params.cpuparams.n_threads = _decode_threads(load)
    params.cpuparams_batch.n_threads = load.threads
    params.cpuparams.poll = params.cpuparams_batch.poll = 0
    params.cache_ram_mib = _PROMPT_CACHE_MIB
    params.slot_prompt_similarity = _SHARED_PREFIX_MIN
    params.n_threads_http = 1
    params.api_keys = [key.reveal()]
    params.endpoint_slots = params.ui = False
    params.verbosity = 0
    return xllamacpp.Server(params)


def _decode_threads(load: Load) -> int:
    return 1 if Path(load.gguf).stat().st_size < _SMALL_MODEL_BYTES else load.threads
