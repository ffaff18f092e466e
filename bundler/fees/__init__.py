"""What a chain charges for data beside executing them: one module a kind of chain, behind one port.

`choose` picks the model; `FeeModel.charges` prices transactions; `Pricing` says what that means for operations and bundles.
"""

from __future__ import annotations

from bundler.fees.choose import AUTO, MODELS, choose
from bundler.fees.model import NO_CHARGE, BundleData, DataCharge, FeeDataError, FeeModel
from bundler.fees.pricing import Pricing

__all__ = ["AUTO", "MODELS", "NO_CHARGE", "BundleData", "DataCharge", "FeeDataError", "FeeModel", "Pricing", "choose"]
