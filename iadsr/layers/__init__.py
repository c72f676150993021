"""What models are made of: layers and losses that know neither users nor methods."""
