"""The AMQP edge: the only folder that knows the clients, aio-pika and pika."""

import logging

# What the clients log of a failure, we raise: without a handler of the program's own it went to standard error.
for _client in "aiormq", "aio_pika", "pika":
    logging.getLogger(_client).addHandler(logging.NullHandler())
