"""The consumers: one module per queue, or per group of queues that belong together.

`brokerjobs consume emails` looks for `Consumer("emails")` here, first in `emails.py`. Modules whose names start
with `_` hold no consumers.
"""
