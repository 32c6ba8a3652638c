"""``python -m skerry``: the command line without its script."""

import sys

from skerry.cli.main import main

sys.exit(main())
