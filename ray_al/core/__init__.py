"""Interfaces and the active-learning loop. Imports numpy and the standard library only."""
