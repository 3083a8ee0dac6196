"""The AMQP edge: the only folder that knows the clients, aio-pika and pika."""

import logging

# What the clients log of a failure, we raise: without a handler of the program's own it went to standard error.
# Below WARNING they log whole frames, hence arguments of jobs: a program that wants to see them sets a level itself.
for _client in "aiormq", "aio_pika", "pika":
    _logger = logging.getLogger(_client)
    _logger.addHandler(logging.NullHandler())
    if _logger.level == logging.NOTSET:
        _logger.setLevel(logging.WARNING)
