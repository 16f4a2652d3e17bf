"""`python -m ingle` is the `ingle` command."""

import sys

from ingle.cli.main import main

sys.exit(main())
