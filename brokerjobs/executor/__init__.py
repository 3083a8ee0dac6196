"""Run one message: a Message in, an Outcome out. Nothing here knows AMQP."""

from brokerjobs.executor.children import Program
from brokerjobs.executor.execution import Executor
from brokerjobs.executor.processes import Processes
from brokerjobs.executor.threads import Threads

__all__ = ["Executor", "Processes", "Program", "Threads"]
