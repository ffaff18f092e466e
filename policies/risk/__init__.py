"""Risk models. Pure; every module is imported only by what needs it, so that numpy is not loaded for a rule that needs none.

black, black_arrays          options: price and Greeks, one or many
implied, surface             volatility from prices, and a surface from a chain
scenarios_*, _kernel*        a whole book priced anew in grids, shocks and replays of history
tail, tail_*                 value at risk and expected shortfall
margin/                      venues' margin rules, and where each liquidates
columns                      limits over columns of history
"""
