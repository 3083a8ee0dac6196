"""The AMQP edge: the only folder that knows the clients, aio-pika and pika."""
