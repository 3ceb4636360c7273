"""Reported against reproduced: tables of papers' claims, what results say of them, and the page of both."""
