"""`python -m agebench` is the console script."""

import sys

from agebench.cli import main

if __name__ == "__main__":
    sys.exit(main())
