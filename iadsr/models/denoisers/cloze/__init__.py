"""A denoiser that asks of every item how well it fits its gap, and says how surely it is noise."""
