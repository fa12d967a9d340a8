"""Who may stand for a decision, under the name by which the floors above ask.

The one check lives with evidence, the lowest floor on which people decide.
"""

from __future__ import annotations

from stagerelease.evidence.humans import accountable

__all__ = ["accountable"]
