"""Books of venues off the chain, as files that somebody saves: read anew for every judgement, refused when they are old or malformed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from contracts.errors import BadInput
from policies.portfolio import Missing
from policies.venues import Snapshot
from policies.venues.exports import PARSERS, Export, parse_export
from policies.venues.exports.base import MAX_CHARACTERS

MAX_AGE_S = 900
"""How old an exported book may be, by the venue's own clock."""
_AHEAD_S = 60


@dataclass(frozen=True, slots=True)
class ExportFile:
    """Where a venue's saved answers lie."""

    venue: str
    path: Path


def export_files(named: Iterable[tuple[str, Path]]) -> tuple[ExportFile, ...]:
    """The files of a profile. Raises BadInput for a venue that has no reader."""
    found = []
    for venue, path in named:
        if venue not in PARSERS:
            raise BadInput(f"there is no reader for exports of {venue!r}; known are {', '.join(PARSERS)}")
        found.append(ExportFile(venue, path))
    return tuple(found)


def read_export(file: ExportFile) -> Export:
    """Raises BadInput for a file that cannot be read, or is no such export."""
    try:
        with file.path.open(encoding="utf-8") as opened:
            return parse_export(file.venue, opened.read(MAX_CHARACTERS + 1))
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read {file.path}: {error}") from None


def exported(files: Iterable[ExportFile], now_s: int) -> tuple[Snapshot, ...]:
    """The books at `now_s` (unix s). One that cannot be read, or is too old, is a missing fact and nothing of it is used."""
    found = []
    for file in files:
        what = f"the exported book of {file.venue}"
        try:
            export = read_export(file)
        except BadInput as error:
            found.append(Snapshot(missing=(Missing(what, error.message),)))
            continue
        age = now_s - export.time_s
        if not -_AHEAD_S <= age <= MAX_AGE_S:
            why = (
                f"it is {age} s old, {MAX_AGE_S} s are taken"
                if age > 0
                else f"it is {-age} s ahead of the newest block"
            )
            found.append(Snapshot(missing=(Missing(what, why),)))
            continue
        found.append(export.snapshot)
    return tuple(found)
