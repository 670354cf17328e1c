"""An inference engine for token sequences: paged K/V, continuous batching, weighted branches.

It knows token ids, plans and a model given by argument. It knows no text and no picture.
"""

from logging import NullHandler, getLogger

from unitok_engine.adapters import AdapterRows
from unitok_engine.attention.backends import make_backend
from unitok_engine.attention.base import AttentionBackend, AttentionMetadata, CacheView
from unitok_engine.attention.kv_layout import KVShape
from unitok_engine.config import EngineConfig
from unitok_engine.draft_table import DraftTable
from unitok_engine.draft_width import DraftWidth
from unitok_engine.drafter import Drafter, SampleDrafter
from unitok_engine.engine import Engine, EngineStats
from unitok_engine.grid_drafter import GridDrafter
from unitok_engine.ids import IdRange
from unitok_engine.model import AdaptableModel, Model
from unitok_engine.observer import Observer, StepRecord
from unitok_engine.plans import Allow, FixedPlan, Force, FreePlan, GridPlan, Plan, Stop
from unitok_engine.request import Branch, Embeddings, Output, Request, Sampling, join_outputs

getLogger(__name__).addHandler(NullHandler())

__all__ = [
    "AdaptableModel",
    "AdapterRows",
    "Allow",
    "AttentionBackend",
    "AttentionMetadata",
    "Branch",
    "CacheView",
    "DraftTable",
    "DraftWidth",
    "Drafter",
    "Embeddings",
    "Engine",
    "EngineConfig",
    "EngineStats",
    "FixedPlan",
    "Force",
    "FreePlan",
    "GridDrafter",
    "GridPlan",
    "IdRange",
    "KVShape",
    "Model",
    "Observer",
    "Output",
    "Plan",
    "Request",
    "SampleDrafter",
    "Sampling",
    "StepRecord",
    "Stop",
    "join_outputs",
    "make_backend",
]
