"""Core: configuration, database, ids, clock, errors, content addressing. Knows no layer above it."""
