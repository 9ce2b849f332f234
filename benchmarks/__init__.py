"""Measures with targets, run by `make bench`: a table, and `results.json` (name → value, unit, target, ok, load)."""
