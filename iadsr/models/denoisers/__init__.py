"""A denoiser a file or folder; registry.py lists them."""
