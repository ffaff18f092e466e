"""`python -m bundler`: settings from a TOML file, then SEAWALL_BUNDLER_* variables, then flags; later ones win."""

from __future__ import annotations

import argparse
import asyncio
import sys
from dataclasses import fields
from pathlib import Path

from bundler.main import configure_logging, run
from bundler.settings import Settings, read_environment, read_toml, refuse_password
from contracts.errors import SeawallError

_SPECIAL = ("executor_key", "entry_points")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bundler", description="ERC-4337 bundler")
    parser.add_argument("--config", type=Path, help="TOML file, settings at the top level or in [bundler]")
    parser.add_argument("--entry-points", help="addresses, separated by commas")
    for name in ("key_file", "keystore", "password_file", "key_env", "key_fd"):
        parser.add_argument(f"--{name.replace('_', '-')}", help="the executor's key (one source)")
    for field in fields(Settings):
        if field.name not in _SPECIAL:
            parser.add_argument(f"--{field.name.replace('_', '-')}")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run until told to stop; returns the exit code."""
    parsed = _parser().parse_args(arguments)
    try:
        flags = {name: value for name, value in vars(parsed).items() if value is not None and name != "config"}
        if "entry_points" in flags:
            flags["entry_points"] = flags["entry_points"].split(",")
        refuse_password(flags.get("store", ""))

        def read() -> Settings:
            file = read_toml(parsed.config) if parsed.config else {}
            return Settings.from_mapping(file | read_environment() | flags)

        settings = read()
        configure_logging(settings.log_format)
        asyncio.run(run(settings, reread=read))
    except SeawallError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
