"""The page that every run leaves: curves, samples, tables."""
