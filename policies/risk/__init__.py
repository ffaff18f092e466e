"""Risk models: pricing, scenarios, tail measures and margin. Pure; every module is imported only by what needs it."""
