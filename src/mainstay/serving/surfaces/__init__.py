"""The wire formats that clients speak, each a reader of requests and a renderer of answers in the normal form."""

from mainstay.serving.surfaces.types import Ids, StreamRenderer, Surface

__all__ = ["Ids", "StreamRenderer", "Surface"]
