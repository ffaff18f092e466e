"""`python -m wallet.keeper`: the keeper without the rest of the command line."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from contracts.errors import SeawallError
from wallet.config import SETTINGS
from wallet.keeper.main import start
from wallet.keystore import PassphraseSource


def main() -> int:
    """Parse flags (each setting of the keeper and each top-level one), run, and return an exit code."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False, prog="python -m wallet.keeper", description="Watch heads and fire due stops."
    )
    parser.add_argument("--config", type=Path, help="configuration file instead of ./seawall.toml")
    parser.add_argument("--passphrase-file", type=Path)
    parser.add_argument("--passphrase-fd", type=int)
    for key, setting in SETTINGS.items():
        if "." not in key or key.startswith("keeper."):
            parser.add_argument(
                "--" + key.removeprefix("keeper.").replace("_", "-"),
                dest=key,
                metavar="VALUE",
                help=setting.help.replace("%", "%%"),
            )
    given = vars(parser.parse_args())
    config, file, fd = (given.pop(name) for name in ("config", "passphrase_file", "passphrase_fd"))
    try:
        start(config, given, PassphraseSource.of(file, fd, os.environ))
    except SeawallError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
