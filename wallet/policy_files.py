"""Read policy files from disk: the policy engine itself touches no files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from contracts.errors import BadInput, SetupError
from policies.document import MAX_PARENTS, load, parent_of
from policies.policy import Policy


def read_text(path: Path, what: str) -> str:
    """A text file. Raises BadInput if it is not UTF-8, SetupError if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise BadInput(f"the {what} {path} is not UTF-8 text") from None
    except OSError as error:
        raise SetupError(f"the {what} {path} cannot be read: {error.strerror}") from None


def read_policy(path: Path) -> tuple[str, dict[str, str]]:
    """The text of a policy file and, by what `extends:` calls them, of all files above it. Names are relative to `path`.

    A parent that is not there is left out: the linter says so, with the line. Raises BadInput, SetupError.
    """
    text = read_text(path, "policy file")
    parents: dict[str, str] = {}
    name = parent_of(text)
    while name is not None and name not in parents and len(parents) <= MAX_PARENTS:
        if not (path.parent / name).is_file():
            break
        parents[name] = read_text(path.parent / name, "policy file")
        name = parent_of(parents[name])
    return text, parents


def load_policy(path: Path, variables: Mapping[str, str] | None = None) -> Policy:
    """The policy that a file means. Raises InvalidPolicy with every problem, BadInput or SetupError when it cannot be read."""
    text, parents = read_policy(path)
    return load(text, parents, dict(variables or {}))
