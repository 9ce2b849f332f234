"""Chooses targets and calls them: policies, breakers, attempts under one budget and one deadline."""
