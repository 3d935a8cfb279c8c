"""`python -m stillhouse`."""

from .cli import main

main()
