"""The wire formats that clients speak, each a reader of requests and a renderer of answers in the normal form."""

from collections.abc import Mapping

from mainstay.serving.surfaces.chat import ChatSurface
from mainstay.serving.surfaces.completions import CompletionsSurface
from mainstay.serving.surfaces.messages import MessagesSurface
from mainstay.serving.surfaces.responses import ResponsesSurface
from mainstay.serving.surfaces.types import Ids, StreamRenderer, Surface
from mainstay.serving.types import SurfaceName

SURFACES: Mapping[SurfaceName, Surface] = {
    "chat": ChatSurface(),
    "responses": ResponsesSurface(),
    "completions": CompletionsSurface(),
    "messages": MessagesSurface(),
}

__all__ = ["SURFACES", "Ids", "StreamRenderer", "Surface"]
