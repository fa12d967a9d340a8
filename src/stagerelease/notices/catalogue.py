"""Every event there are words for. One that is not here is emitted nowhere: a test sees to it."""

from __future__ import annotations

from collections.abc import Mapping

from stagerelease.notices import words_for_holders, words_for_staff
from stagerelease.notices.words import Words

WORDS: Mapping[str, Words] = {**words_for_holders.WORDS, **words_for_staff.WORDS}
