"""`python -m brokerjobs.demo`: a real RabbitMQ, a real worker, real jobs, and a look at what becomes of them.

__main__   options and exit codes
stage      brings everything up, keeps it together, takes it down
plan       which jobs, and which faults, from a seed
mailbox    an SMTP server that refuses some mail
worker     the worker, a process of its own; its log, line by line; its metrics
ledger     what the log says became of each job
holdings   what the queues hold
summary    both compared
display    shown live on a terminal, or in plain lines
"""
