"""Recommenders: plain ones and denoisers, one interface; their configuration, files, ranks and verdicts."""
