"""`python -m resilient_exporters`: the command line."""

from __future__ import annotations

from resilient_exporters.cli import main

if __name__ == "__main__":
    main()
