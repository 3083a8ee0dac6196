"""`python -m brokerjobs` is the command `brokerjobs`."""

from brokerjobs.cli import main

main()
