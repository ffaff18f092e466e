"""Start and stop anvil, and leave nothing behind: it dies with the process that started it, however that one ends."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from contracts.devnet import packages
from contracts.errors import SetupError

VERSION = "1.7.1"
_LISTENING = re.compile(rb"Listening on [\d.]+:(\d+)")
_WATCHDOG = 'read -r _; kill -9 "$0" 2>/dev/null; rm -rf "$1"'
"""Reads a pipe that only our process holds open: it ends when we do, even by SIGKILL, and takes anvil along."""


@dataclass(frozen=True, slots=True)
class Binary:
    """An anvil of the pinned version, and where it was found."""

    path: Path
    source: str


def _version_of(path: str) -> str:
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"unknown ({error})"
    found = re.search(r"\d+\.\d+\.\d+", done.stdout)
    return found.group() if found else "unknown"


def find_binary() -> Binary:
    """anvil from SEAWALL_ANVIL, else from PATH if its version is the pinned one, else from its npm package (fetched if need be).

    Blocking. Raises SetupError: SEAWALL_ANVIL is another version, or there is no package for this platform.
    """
    chosen = os.environ.get("SEAWALL_ANVIL")
    if chosen:
        if (version := _version_of(chosen)) != VERSION:
            raise SetupError(f"SEAWALL_ANVIL={chosen} is version {version}; the devnet is pinned to anvil {VERSION}")
        return Binary(Path(chosen), "SEAWALL_ANVIL")
    on_path = shutil.which("anvil")
    if on_path and _version_of(on_path) == VERSION:
        return Binary(Path(on_path), "PATH")
    package = packages.anvil_package()
    if package is None:
        raise SetupError(
            f"the lock has no anvil for {packages.this_platform()}: install Foundry's anvil {VERSION} on PATH, "
            "or set SEAWALL_ANVIL to its path"
        )
    packages.fetch([package])
    return Binary(package.path("bin/anvil"), f"npm {package.spec}")


class Anvil:
    """A running anvil on the loopback. Use as an async context manager, or call `stop`."""

    def __init__(self, process: subprocess.Popen[bytes], watchdog: subprocess.Popen[bytes], scratch: Path, port: int):
        self._process = process
        self._watchdog = watchdog
        self._scratch = scratch
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    @property
    def pid(self) -> int:
        return self._process.pid

    @classmethod
    async def start(cls, binary: Path, arguments: Sequence[str], *, port: int = 0, timeout_s: float = 30.0) -> Self:
        """Start and wait until it listens. `port` 0 takes a free one.

        Raises SetupError with anvil's own words when it does not come up, for example because the port is taken.
        """
        anvil = cls._spawn(binary, arguments, port)
        try:
            anvil.port = await anvil._listening(timeout_s)
        except BaseException:
            await anvil.stop()
            raise
        anvil.url = f"http://127.0.0.1:{anvil.port}"
        return anvil

    @classmethod
    def _spawn(cls, binary: Path, arguments: Sequence[str], port: int) -> Self:
        scratch = Path(tempfile.mkdtemp(prefix="seawall-anvil-"))
        command = [str(binary), "--host", "127.0.0.1", "--port", str(port), "--cache-path", str(scratch), *arguments]
        try:
            with (scratch / "anvil.log").open("wb") as log:
                # A session of its own: Ctrl-C reaches us, and we stop anvil in order.
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
        except OSError as error:
            shutil.rmtree(scratch, ignore_errors=True)
            raise SetupError(f"cannot start {binary}: {error}") from error
        watchdog = subprocess.Popen(
            ["/bin/sh", "-c", _WATCHDOG, str(process.pid), str(scratch)], stdin=subprocess.PIPE, start_new_session=True
        )
        return cls(process, watchdog, scratch, port)

    async def _listening(self, timeout_s: float) -> int:
        """The port, once anvil says that it listens."""
        log = self._scratch / "anvil.log"
        deadline = asyncio.get_running_loop().time() + timeout_s
        while (found := _LISTENING.search(text := log.read_bytes())) is None:
            if not self.is_running() or asyncio.get_running_loop().time() > deadline:
                said = " ".join(text.decode(errors="replace").split()[-60:]) or "nothing"
                advice = f"Port {self.port} may be in use: choose another, or 0 for a free one. " if self.port else ""
                raise SetupError(f"anvil did not start. {advice}It says: {said}")
            await asyncio.sleep(0.005)
        return int(found.group(1))

    def is_running(self) -> bool:
        return self._process.poll() is None

    async def stop(self) -> None:
        """End anvil and its watchdog, and remove its scratch folder. Harmless when already stopped."""
        for process in (self._watchdog, self._process):
            if process.poll() is None:
                process.kill()
            process.wait()
        if self._watchdog.stdin is not None:
            self._watchdog.stdin.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
