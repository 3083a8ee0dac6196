"""Coverage-guided fuzzing of the codec, with pamqp as the oracle: `make fuzz`.

`targets` says what must hold of any bytes, `seeds` what it begins with, `corpus` keeps what was worth keeping; the
ordinary tests try that again each time. `__main__` runs the fuzzer, in processes of `run`, and is all that needs it.
"""
