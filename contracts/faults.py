"""Named points at which a test may kill the process, so that every crash window is tested on the real program.

A service calls `checkpoint("bundler.send.before")` around each step that sends or records something. Nothing happens unless
the environment variable SEAWALL_CRASH_AT names that point (`name` or `name:n` for its n-th pass); then the process gets SIGKILL,
as the kernel or a power cut would give it: no handlers, no flush.
"""

from __future__ import annotations

import os
import signal

_target, _, _nth = os.environ.get("SEAWALL_CRASH_AT", "").partition(":")
_passes_left = int(_nth or 1)


def checkpoint(name: str) -> None:
    """Die here if a test asked for it."""
    global _passes_left
    if name == _target:
        _passes_left -= 1
        if _passes_left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
