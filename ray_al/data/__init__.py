"""Datasets, spaces and the artifact store. Imports numpy and the standard library only at module level."""
