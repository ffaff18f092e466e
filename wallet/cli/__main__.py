"""`python -m wallet.cli`: the same as `seawall`."""

from wallet.cli.main import run

run()
