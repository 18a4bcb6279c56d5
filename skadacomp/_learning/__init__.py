"""Learning: where torch is. Arrays in, arrays out.

`learn` tells the story from top to bottom: a full-precision teacher, the space in which distances
count for the task, step 1 (lengths), step 2 (codes), and the codebooks fitted once more.
"""

from __future__ import annotations

from skadacomp._learning.learner import Learned, Settings, Task, fine_tune_table, learn
from skadacomp._learning.lengths import Budget, Rate

__all__ = ["Budget", "Learned", "Rate", "Settings", "Task", "fine_tune_table", "learn"]
