"""Batches -> better weights: loops, losses, optimisers, checkpoints and reports."""
