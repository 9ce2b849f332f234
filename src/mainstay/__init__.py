"""Mainstay: the operational backbone for LLM applications."""

__version__ = "0.1.0"
