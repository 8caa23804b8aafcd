"""Models: where they come from, their heads and adapters, and their answers."""

from evenhand.models.saved import load_model

__all__ = ["load_model"]
