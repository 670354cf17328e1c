"""Janus-4o: Janus-Pro, trained on to change pictures (https://arxiv.org/abs/2506.18095)."""

from unitok.families.janus4o.family import Janus4o, load, matches

__all__ = ["Janus4o", "load", "matches"]
