"""Dead letters: look at them, group them by error, replay them, drop them."""

from brokerjobs.amqp.settlement import Entry
from brokerjobs.dead_letters.desk import DeadLetters, Group, Page
from brokerjobs.dead_letters.letter import DeadLetter, Filter
from brokerjobs.dead_letters.moving import Progress

__all__ = ["DeadLetter", "DeadLetters", "Entry", "Filter", "Group", "Page", "Progress"]
