"""STEAM (WWW 2023)."""
