"""The demo's services as real processes: started, waited for, killed with SIGKILL, started again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from contracts.errors import SetupError
from contracts.rpc import RpcClient

_START_TIMEOUT_S = 30.0


class Service:
    """One `python -m MODULE` that prints `{"event":"listening","url":...}` when it is ready. Its log goes to a file."""

    def __init__(self, name: str, module: str, arguments: Sequence[str], log: Path) -> None:
        self.name = name
        self._command = [sys.executable, "-m", module, *arguments]
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self.rpc: RpcClient | None = None
        self.url = ""

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self, environment: Mapping[str, str] | None = None) -> None:
        """Start and wait until it listens. Raises SetupError with the end of its log if it does not."""
        env = {**os.environ, **(environment or {})}
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=env,
            )
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                while line := await self._process.stdout.readline():
                    with contextlib.suppress(ValueError):
                        message = json.loads(line)
                        if isinstance(message, dict) and message.get("event") == "listening":
                            self.url = message["url"]
                            self.rpc = RpcClient(self.url)
                            return
        except TimeoutError:
            await self.kill()
        tail = self._log.read_text(errors="replace")[-2000:]
        raise SetupError(f"{self.name} did not start; the end of {self._log}:\n{tail}")

    async def _gone(self) -> None:
        if self.rpc is not None:
            await self.rpc.close()
            self.rpc = None
        if self._process is not None:
            await self._process.wait()

    async def kill(self) -> None:
        """SIGKILL: what a crash or a power cut does."""
        if self.alive and self._process is not None:
            self._process.send_signal(signal.SIGKILL)
        await self._gone()

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL after five seconds."""
        if self.alive and self._process is not None:
            self._process.terminate()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5):
                    await self._process.wait()
        await self.kill()
