"""Terms of a margin model as the facts carry them: names with figures, looked up with a message when one is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from contracts.errors import InvalidFields


@dataclass(frozen=True, slots=True)
class Terms:
    """The parameters of `model`. A name may carry an asset, an expiry or an index after a dot: `leverage.ETH`."""

    model: str
    values: Mapping[str, Decimal]

    def get(self, name: str, default: Decimal | None = None) -> Decimal:
        """The figure of `name`; raises `InvalidFields` when it is not there and has no default, or is not finite."""
        value = self.values.get(name, default)
        if value is None:
            raise InvalidFields(f"margin model {self.model} needs the term {name}, which the venue did not give")
        if not value.is_finite():
            raise InvalidFields(f"margin model {self.model}: the term {name} is {value}")
        return value

    def of(self, name: str, asset: str, default: Decimal | None = None) -> Decimal:
        """The figure of `name.asset`, else of `name`."""
        own = self.values.get(f"{name}.{asset}")
        return self.get(name, default) if own is None else self.get(f"{name}.{asset}")

    def under(self, name: str) -> dict[str, Decimal]:
        """Every figure `name.X` by X."""
        prefix = f"{name}."
        return {key.removeprefix(prefix): self.get(key) for key in self.values if key.startswith(prefix)}

    def steps(self, name: str, asset: str) -> tuple[tuple[Decimal, Decimal], ...]:
        """(from notional, figure) of `name.asset` (from 0) and every `name.asset.FROM`, ascending; of `name` when the asset has none."""
        found: dict[Decimal, Decimal] = {}
        for key, value in self.under(name).items():
            own, _, start = key.partition(".")
            if own != asset:
                continue
            try:
                found[Decimal(start or 0)] = value
            except InvalidOperation:
                raise InvalidFields(f"margin model {self.model}: {name}.{key} does not end in a number") from None
        if not found:
            found[Decimal(0)] = self.get(name)
        return tuple(sorted(found.items()))
