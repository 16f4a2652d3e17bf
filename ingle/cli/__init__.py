"""The `ingle` command: one file per verb, with `add_arguments(parser)` and `run(args)`."""
