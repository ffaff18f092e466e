"""`seawall policy serve`: the policy engine for traders who sign elsewhere."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer

from wallet.cli.output import PassphraseFd, PassphraseFile, profile


def serve(
    ctx: typer.Context,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 4340,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="0600 file with the clients' token; made if it is not there. Default: in the data folder.",
        ),
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The policy file; default: the profile's.")
    ] = None,
    account: Annotated[
        str | None, typer.Option(help="Serve this account only; default: the profile's, or all that obey the policy.")
    ] = None,
    judge_only: Annotated[
        bool, typer.Option("--judge-only", help="Open no key: judge and record, attest nothing.")
    ] = False,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Serve until SIGTERM: judge, approve and attest over HTTP. Prints one JSON line with its address once it listens."""
    import logging
    import sys

    from wallet.config import data_directory
    from wallet.keystore import PassphraseSource
    from wallet.serve_main import run

    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    settings = profile(ctx, {"policy": policy, "account": account}).profile
    source = PassphraseSource.of(passphrase_file, passphrase_fd, os.environ)
    tokens = token_file or data_directory() / "policy-service.token"
    asyncio.run(run(settings, source, host=host, port=port, token_file=tokens, judge_only=judge_only))
