"""Sequence encoders: item embeddings of a history -> the state of each of its prefixes."""
