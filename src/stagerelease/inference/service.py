"""This slice's use cases, under one name for the faces.

``prepare`` lets a request through and reserves what it may use; an engine computes; ``recheck`` is
asked meanwhile and ``finish`` records. ``list_models`` and ``find_model`` say what may be asked.
"""

from __future__ import annotations

from stagerelease.inference.admitting import (
    Asked,
    House,
    Permit,
    finish,
    limits_of,
    lost_due,
    prepare,
    recheck,
    settle_lost,
)
from stagerelease.inference.house import house_of
from stagerelease.inference.keeping import erase_prompts, prompts_due, read_prompts
from stagerelease.inference.limiting import GrantLimits, set_limits, show_limits, usage
from stagerelease.inference.models import Contexts, ModelRow, find_model, list_models

__all__ = [
    "Asked",
    "Contexts",
    "GrantLimits",
    "House",
    "ModelRow",
    "Permit",
    "erase_prompts",
    "find_model",
    "finish",
    "house_of",
    "limits_of",
    "list_models",
    "lost_due",
    "prepare",
    "prompts_due",
    "read_prompts",
    "recheck",
    "set_limits",
    "settle_lost",
    "show_limits",
    "usage",
]
