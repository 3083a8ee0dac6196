"""`python -m brokerjobs.demo`: a real RabbitMQ, a real worker, real jobs, and a look at what becomes of them.

__main__     options, signals and exit codes
plan         which jobs, and which faults, from a seed
stage        all that runs: brought up in order, taken down in reverse
mailbox      an SMTP server that refuses some mail
worker       the worker, a process of its own; its log and its metrics
performance  publish, watch, compare
ledger       what became of each job, by what the worker logged
holdings     what the queues hold, by RabbitMQ itself
summary      all sources held against each other
display      a live picture on a terminal, plain lines elsewhere
guide        what to try while it stays
"""
