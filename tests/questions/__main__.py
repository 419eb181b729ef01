"""Print the page of the documentation: ``python -m tests.questions``."""

import sys

from . import page

if __name__ == "__main__":
    sys.stdout.write(page())
