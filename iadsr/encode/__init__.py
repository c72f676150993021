"""Titles and histories -> text vectors on disk (Eq. 3-5)."""
