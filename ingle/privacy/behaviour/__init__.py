"""What a model does with prompts of our own: differences, weak code, refusals, calls, triggers.

Every part asks the audited model itself, judges its answers by rules that can be read here, and
gives counts with intervals. No other model judges, nothing that was generated is run.
"""
