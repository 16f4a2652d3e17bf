"""What leaves (nothing), what a model folder holds, and what may be admitted."""
