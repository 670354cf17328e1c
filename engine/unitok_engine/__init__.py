"""An inference engine for lines of ids: paged K/V, continuous batching, weighted branches.

It knows ids, plans and a model given by argument; it knows no text and no picture.
"""

from logging import NullHandler, getLogger

from unitok_engine.config import EngineConfig, KVShape
from unitok_engine.engine import Engine, EngineStats
from unitok_engine.kv_cache import CacheView, KVCache
from unitok_engine.observer import Observer, StepRecord
from unitok_engine.request import (
    Allow,
    Branch,
    Features,
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
    "Engine",
    "EngineConfig",
    "EngineStats",
    "Features",
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
