"""Chaos: real processes under random faults, and an account of every single job at the end.

    publishers ─┐                     ┌─ workers (`brokerjobs consume`)
                ├─ proxy ─ RabbitMQ ──┤              all write journals on local disk, never through the broker
    nemesis ────┘ breaks any of them  └─ …
                                                     ► history ► checker ► one line of JSON

`make chaos` runs it for minutes, `tests/fault/test_chaos.py` for seconds. Same seed, same faults in the same order
(but not at the same instant of each message).
"""
