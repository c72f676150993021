"""A trained model and any history -> top-k lists."""
