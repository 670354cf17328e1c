"""An inference engine for lines of ids: paged K/V, continuous batching, weighted branches.

It knows ids, plans and a model given by argument; it knows no text and no picture.
"""

from logging import NullHandler, getLogger

from unitok_engine.attention.backends import make_backend
from unitok_engine.attention.base import AttentionBackend, AttentionMetadata, CacheView
from unitok_engine.attention.kv_layout import KVShape
from unitok_engine.config import EngineConfig
from unitok_engine.engine import Engine, EngineStats
from unitok_engine.model import Model
from unitok_engine.observer import Observer, StepRecord
from unitok_engine.request import (
    Allow,
    Branch,
    Embeddings,
    FixedPlan,
    Force,
    FreePlan,
    IdRange,
    Output,
    Plan,
    Request,
    Sampling,
    Stop,
)

getLogger(__name__).addHandler(NullHandler())

__all__ = [
    "Allow",
    "AttentionBackend",
    "AttentionMetadata",
    "Branch",
    "CacheView",
    "Embeddings",
    "Engine",
    "EngineConfig",
    "EngineStats",
    "FixedPlan",
    "Force",
    "FreePlan",
    "IdRange",
    "KVShape",
    "Model",
    "Observer",
    "Output",
    "Plan",
    "Request",
    "Sampling",
    "StepRecord",
    "Stop",
    "make_backend",
]
