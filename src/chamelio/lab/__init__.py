"""The laboratory: TCP in the virtual world, against a scripted peer or against itself.

language.py     the words of scripts, as tables, and what a script consists of
parse.py        from text to steps; errors with line, column and caret
run.py          a script is run: the peer's and the application's steps, what comes and when
match.py        whether a segment that came is the one that is expected
flow.py         a connection as the peer knows it: relative numbers, what was agreed on
segments.py     segments and ICMP messages as bytes
pattern.py      bytes that follow from their position
link.py         the far end of a wire in Python
station.py      a host with TCP, its slow path and its application stepped by hand
application.py  an application on the rings, as tcp.h describes it
record.py       a line of a trace
laboratory.py   two hosts with TCP: transfers, what they take, what is said
line.py         the line between them: rate, delay, a queue that drops and marks
contract.py     the numbers in tcp.h and the names in states.h
"""

from __future__ import annotations

from chamelio.lab.laboratory import Laboratory, Stalled, Stream, Transfer
from chamelio.lab.parse import ScriptError, parse, parse_file
from chamelio.lab.run import Result, run_script

__all__ = ["Laboratory", "Result", "ScriptError", "Stalled", "Stream", "Transfer", "parse", "parse_file", "run_script"]
