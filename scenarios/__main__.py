"""The mininetes command. Imports nothing of weight before it can say what Ctrl-C means."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; its exit status, 130 for Ctrl-C at any moment."""
    try:
        from scenarios.cli.main import run

        return run(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
