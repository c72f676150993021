"""Ranks and verdicts -> metrics, tables and pictures."""
