"""Denoisers: each is a Recommender with its own losses and its own `keep`."""

DENOISERS = ("none", "iadsr")
