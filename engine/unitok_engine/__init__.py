"""An inference engine for lines of ids: paged K/V, continuous batching, weighted branches.

It knows ids, plans and a model given by argument; it knows no text and no picture.
"""

from logging import NullHandler, getLogger

from unitok_engine.attention.kv_cache import CacheView, KVCache
from unitok_engine.config import EngineConfig, KVShape
from unitok_engine.engine import Engine, EngineStats
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
from unitok_engine.runner import Model

getLogger(__name__).addHandler(NullHandler())

__all__ = [
    "Allow",
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
    "KVCache",
    "KVShape",
    "Model",
    "Observer",
    "Output",
    "Plan",
    "Request",
    "Sampling",
    "StepRecord",
    "Stop",
]
