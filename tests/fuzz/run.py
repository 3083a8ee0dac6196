"""One target under the fuzzer, until it fails or time is up; it ends the process.

python -m tests.fuzz.run stream -max_total_time=60 …    (options of libFuzzer, folders of inputs)
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["brokerjobs.amqp", "brokerjobs.message"]):
    from tests.fuzz.targets import TARGETS

if __name__ == "__main__":
    target = TARGETS[sys.argv[1]]
    atheris.Setup([sys.argv[0], *sys.argv[2:]], target)
    atheris.Fuzz()
