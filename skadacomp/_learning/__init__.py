"""Learning: where torch is. Arrays in, arrays out.

`learn` tells the story from top to bottom: a full-precision teacher, the space in which distances
count for the task, step 1 (lengths), step 2 (codes), and the codebooks fitted once more.
"""

from __future__ import annotations

from skadacomp._learning.checkpoint import Checkpoint, fingerprint
from skadacomp._learning.heads import make_head
from skadacomp._learning.learner import check_head, fine_tune_table, learn
from skadacomp._learning.lengths import Budget, Rate
from skadacomp._learning.settings import Learned, Settings, Task
from skadacomp._learning.trainer import Documents

__all__ = [
    "Budget",
    "Checkpoint",
    "Documents",
    "Learned",
    "Rate",
    "Settings",
    "Task",
    "check_head",
    "fine_tune_table",
    "fingerprint",
    "learn",
    "make_head",
]
