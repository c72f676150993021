"""Raw files, official, generated or a user's own -> interactions and items."""
