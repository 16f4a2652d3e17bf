"""How good a model is: pass@k and maj@k on tasks and open sets, here or at an endpoint."""
