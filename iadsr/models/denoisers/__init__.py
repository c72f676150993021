"""The denoisers, one in each file or folder; registry.py lists them."""
