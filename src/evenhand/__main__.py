"""`python -m evenhand` is the same program as `evenhand`."""

import sys

from evenhand.cli.parser import main

if __name__ == "__main__":
    sys.exit(main())
