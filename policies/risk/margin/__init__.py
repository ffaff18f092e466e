"""Margin models of venues behind one interface, and where each makes an account liquidatable.

`account_of` turns a portfolio's venue account into a model and its inputs; `MODELS` is the table of rules and of what their terms mean.
"""

from policies.risk.margin.account import Account, Model, Part, Requirement
from policies.risk.margin.liquidation import CriticalMoves, critical_moves, liquidation_prices
from policies.risk.margin.models import MODELS, Entry, model_of
from policies.risk.margin.portfolio import VenueAccount, account_of, loan_account_of, venue_accounts

__all__ = [
    "MODELS",
    "Account",
    "CriticalMoves",
    "Entry",
    "Model",
    "Part",
    "Requirement",
    "VenueAccount",
    "account_of",
    "critical_moves",
    "liquidation_prices",
    "loan_account_of",
    "model_of",
    "venue_accounts",
]
