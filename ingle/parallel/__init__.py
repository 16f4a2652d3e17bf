"""Many processes: one run's weights, experts and streams divided among those torchrun starts."""
