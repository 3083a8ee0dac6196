"""Options that several verbs share."""

from __future__ import annotations

import click

url_option = click.option(
    "--url", metavar="URL", help="Where RabbitMQ is. Better set BROKERJOBS_URL: others see arguments."
)
consumers_option = click.option(
    "--consumers", metavar="PACKAGE", help="Package that holds the consumers [consumers]."
)
namespace_option = click.option("--namespace", metavar="WORD", help="Prefix of all exchanges and queues.")
wait_option = click.option(
    "--wait", metavar="DURATION", default="1s", help="How long to wait for answers of workers [1s]."
)
management_url_option = click.option(
    "--management-url", metavar="URL", help="Its management API; by default its port plus 10000."
)
