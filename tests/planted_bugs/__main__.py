"""Print the table of the documentation: ``python -m tests.planted_bugs``."""

import sys

from . import markdown

if __name__ == "__main__":
    sys.stdout.write(markdown())
