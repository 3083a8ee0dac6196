"""What can go wrong before there is a broker to talk to.

    BrokerJobsError
    └── RabbitMQUnavailable         no broker; the message says what to do
        ├── RabbitMQNotFound        no installation here, or none that is new enough
        ├── RabbitMQNotFetched      Debian's packages could not be downloaded or unpacked
        ├── RabbitMQNotInstalled    apt or brew failed, or may not be used
        └── NodeFailed              a node did not start, died, or did not answer in time

The command line ends with exit code 69 for all of them.
"""

from __future__ import annotations

from brokerjobs.errors import BrokerJobsError


class RabbitMQUnavailable(BrokerJobsError):
    """There is no broker to talk to."""


class RabbitMQNotFound(RabbitMQUnavailable):
    """No usable RabbitMQ installation where it was looked for."""


class RabbitMQNotFetched(RabbitMQUnavailable):
    """The packages of a RabbitMQ version could not be fetched."""


class RabbitMQNotInstalled(RabbitMQUnavailable):
    """The system's package manager did not install RabbitMQ."""


class NodeFailed(RabbitMQUnavailable):
    """A private node did not do as told."""
