"""A real PostgreSQL server of the tests' own: a private cluster in a folder of its own, on a free port of the loopback address."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

MISSING = "PostgreSQL's server programs are not installed: apt-get install postgresql (or set PG_BIN to their folder)"


def binaries() -> Path | None:
    """The folder with initdb and postgres: PG_BIN, PATH, or Debian's, the newest version first."""
    beside = shutil.which("initdb")
    folders = [os.environ.get("PG_BIN", ""), str(Path(beside).resolve().parent) if beside else ""]
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -float(path.parent.name))
    for folder in [*map(Path, filter(None, folders)), *versions]:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    return None


@dataclass(slots=True)
class Cluster:
    """One server. It may be stopped, started again and cut off in the middle of a test."""

    folder: Path
    programs: Path
    port: int
    user: str
    server: subprocess.Popen[bytes] | None = None
    made: int = field(default=0)

    @classmethod
    @contextlib.contextmanager
    def make(cls) -> Iterator[Cluster]:
        """A new cluster, running. Skips the test where PostgreSQL is not installed, unless SEAWALL_NEED_POSTGRES is set."""
        programs = binaries()
        if programs is None:
            assert not os.environ.get("SEAWALL_NEED_POSTGRES"), MISSING
            pytest.skip(MISSING)
        folder = Path(tempfile.mkdtemp(prefix="seawall-pg-"))
        user = pwd.getpwuid(os.getuid()).pw_name
        if os.getuid() == 0:  # initdb refuses to run as root
            user = next(name for name in ("postgres", "nobody") if _exists(name))
            os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        cluster = cls(folder, programs, port, user)
        try:
            cluster.run(
                "initdb", "-D", str(folder / "data"), "-U", "seawall", "--auth=trust", "-E", "UTF8", "--no-sync"
            )
            cluster.start()
            yield cluster
        finally:
            cluster.stop(signal.SIGQUIT)
            shutil.rmtree(folder, ignore_errors=True)

    def _command(self, program: str, *arguments: str) -> list[str]:
        command = [str(self.programs / program), *arguments]
        if os.getuid() == 0:
            command = ["setpriv", f"--reuid={self.user}", "--clear-groups", *command]
        return command

    def run(self, program: str, *arguments: str) -> None:
        found = subprocess.run(
            self._command(program, *arguments),
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert found.returncode == 0, f"{program} failed: {found.stderr}"

    def start(self, *options: str) -> None:
        """Start the server, and wait until it answers."""
        settings: Sequence[str] = (
            f"port={self.port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={self.folder}", "max_connections=100",
            "shared_buffers=32MB", *options,
        )  # fmt: skip
        command = self._command("postgres", "-D", str(self.folder / "data"), *(f"-c{one}" for one in settings))
        with (self.folder / "log").open("ab") as log:
            self.server = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)
        self.run("pg_isready", "--version")
        for _ in range(300):
            with (
                contextlib.suppress(psycopg.OperationalError),
                psycopg.connect(self.url("postgres"), connect_timeout=2),
            ):
                return
            assert self.server.poll() is None, (self.folder / "log").read_text()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.server.wait(0.1)
        raise AssertionError((self.folder / "log").read_text())

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: at once, sessions are cut. SIGQUIT: without a checkpoint, as a crash."""
        if self.server is not None:
            self.server.send_signal(how)
            self.server.wait(60)
            self.server = None

    def url(self, database: str) -> str:
        return f"postgresql://seawall@127.0.0.1:{self.port}/{database}"

    def database(self) -> str:
        """The URL of a new, empty database."""
        self.made += 1
        name = f"test_{self.made}"
        self.execute("postgres", f"CREATE DATABASE {name}")
        return self.url(name)

    def execute(self, database: str, statement: str) -> list[tuple[object, ...]]:
        """One statement as the superuser, on a database's name or URL."""
        url = database if "://" in database else self.url(database)
        with psycopg.connect(url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True
