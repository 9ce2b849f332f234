"""Sources by kind: each lists its documents and reads their bytes."""

from mainstay.knowledge.sources.folder import FolderSource

__all__ = ["FolderSource"]
