"""Crash points: silent unless asked, then the real SIGKILL, at the right pass."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

PROGRAM = """
import atexit
from contracts.faults import checkpoint
atexit.register(print, "handlers ran", flush=True)
for i in range(3):
    checkpoint("here")
    print(i, flush=True)
checkpoint("there")
"""


@pytest.mark.parametrize(
    ("target", "printed"),
    [
        ("", "0 1 2 handlers ran"),
        ("elsewhere", "0 1 2 handlers ran"),
        ("here", ""),
        ("here:1", ""),
        ("here:3", "0 1"),
        ("here:4", "0 1 2 handlers ran"),
        ("there", "0 1 2"),
    ],
)
def test_the_process_dies_at_the_named_pass_and_nowhere_else(target: str, printed: str) -> None:
    environment = os.environ | {"SEAWALL_CRASH_AT": target}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == printed.split()
    assert done.returncode == (0 if "handlers" in printed else -signal.SIGKILL)
