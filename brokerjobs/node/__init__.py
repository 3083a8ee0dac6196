"""A RabbitMQ to talk to: found, fetched or installed, and run as a private node.

Standard library only, and ignorant of the rest of the package except its errors:
`installation` finds a RabbitMQ, `fetch` and `package_manager` get one, `private` runs a node of
it, `detached` leaves one running for daily work, `broker` chooses among all of these.
"""
