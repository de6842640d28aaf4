"""From the text of a script to its steps. Errors are for people: where it is, what was expected, what may have been meant."""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chamelio.lab import language
from chamelio.lab.language import (
    CALLS,
    CHECKS,
    FIELDS,
    FLOW_SETTINGS,
    ISN,
    MAIN,
    NS,
    PEER_PORT,
    SETTINGS,
    Action,
    Await,
    Call,
    Check,
    Field,
    FlowSpec,
    Kind,
    Script,
    Send,
    SendIcmp,
    Stamp,
    Step,
    Value,
    When,
)
from chamelio.lab.segments import ACK, ECE, FLAGS, PSH, SYN

UNITS = {"s": NS, "ms": 1_000_000, "us": 1_000, "ns": 1}
TIME = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(s|ms|us|ns)?")
TERM = re.compile(r"-?(?:0x[0-9a-fA-F]+|\d+)")
FIELD = re.compile(r"([A-Za-z_]\w*)(?:(>=|<=|=)(.*))?", re.DOTALL)
STAMP = re.compile(r"\$(\w+)([+-]\d+)?")
MAX_COUNT = 10_000
HANDSHAKE = {
    "active": Field(Kind.FLAG, "we connect"),
    "rtt": Field(Kind.TIME, "between our segment and the peer's answer [10ms]"),
    "ecn": Field(Kind.FLAG, "both sides agree on ECN"),
}


class ScriptError(Exception):
    """What is wrong where in a script; `line` and `column` count from 1."""

    def __init__(self, message: str, path: str, line: int, column: int, width: int, source: str, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.path, self.line, self.column, self.width = message, path, line, column, width
        self.source, self.hint = source, hint

    def __str__(self) -> str:
        """The line, with a caret under what is wrong."""
        number = str(self.line)
        gap = " " * len(number)
        lines = [
            f"{self.path}:{self.line}:{self.column}: {self.message}",
            f" {number} | {self.source}",
            f" {gap} | {' ' * (self.column - 1)}{'^' * max(1, self.width)}",
        ]
        return "\n".join([*lines, f"   {self.hint}"] if self.hint else lines)


@dataclass(frozen=True)
class Token:
    """A word of a line, and the column where it begins."""

    text: str
    column: int


class _Line:
    """The words of a line, taken from the left."""

    def __init__(self, path: str, number: int, source: str) -> None:
        self.path, self.number = path, number
        self.source = source.rstrip("\n").expandtabs(8)
        code = self.source.split("#", 1)[0]
        self.tokens = [Token(m[0], m.start() + 1) for m in re.finditer(r"\S+", code)]
        self.text = code.strip()
        self._at = 0

    @property
    def more(self) -> bool:
        return self._at < len(self.tokens)

    def peek(self) -> str:
        return self.tokens[self._at].text if self.more else ""

    def take(self, what: str) -> Token:
        """The next word; an error that says what is missing."""
        if not self.more:
            raise self.error(
                f"here the line ends, and {what} is missing", Token(" ", len(self.source.split("#", 1)[0].rstrip()) + 2)
            )
        self._at += 1
        return self.tokens[self._at - 1]

    def rest(self) -> list[Token]:
        """All words that are left."""
        self._at, left = len(self.tokens), self.tokens[self._at :]
        return left

    def error(self, message: str, token: Token, hint: str = "", at: int = 0, width: int = 0) -> ScriptError:
        """An error about a word, or about `width` characters from `at` on in it."""
        width = width or len(token.text) - at
        return ScriptError(message, self.path, self.number, token.column + at, width, self.source, hint)

    def unknown(self, what: str, token: Token, known: Iterable[str], at: int = 0, width: int = 0) -> ScriptError:
        """An error about a word that is none of those known."""
        names = list(known)
        word = token.text[at : at + width] if width else token.text[at:]
        close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(names)}"
        return self.error(f"there is no {what} {word!r}", token, hint, at, width)


def parse_file(path: Path | str) -> list[Script]:
    """The scripts of a file. Raises ScriptError, OSError, UnicodeDecodeError."""
    return parse(Path(path).read_text(), str(path))


def parse(text: str, path: str = "script") -> list[Script]:
    """The scripts in a text. Raises ScriptError."""
    scripts: list[Script] = []
    line: _Line | None = None
    for number, source in enumerate(text.splitlines(), 1):
        line = _Line(path, number, source)
        if not line.tokens:
            continue
        if line.peek() == "script":
            _ended(scripts, line)
            scripts.append(_title(line, scripts))
        elif not scripts:
            raise line.error("a file begins with the name of its first script", line.tokens[0], "write `script NAME` before this")
        else:
            _part(line, scripts[-1])
    _ended(scripts, line or _Line(path, 1, ""))
    return scripts


def _ended(scripts: list[Script], line: _Line) -> None:
    """The last script is complete."""
    if scripts and not scripts[-1].steps:
        script = scripts[-1]
        source = f"script {script.name}"
        raise ScriptError("this script has no steps", script.path, script.line, 1, len(source), source)


def _title(line: _Line, scripts: list[Script]) -> Script:
    line.take("")
    first = line.take("the script's name")
    name = line.source[first.column - 1 :].split("#", 1)[0].strip()
    if any(script.name == name for script in scripts):
        raise line.error("another script of this file has this name", Token(name, first.column))
    return Script(line.path, name, line.number, flows={MAIN: FlowSpec(MAIN, PEER_PORT, ISN)})


def _part(line: _Line, script: Script) -> None:
    word = line.peek()
    if word in ("shows", "set", "flow"):
        token = line.take("")
        if word == "shows":
            script.shows = line.text.partition(" ")[2].strip()
            line.rest()
        elif script.steps:
            raise line.error(f"`{word}` stands before the first step", token)
        elif word == "set":
            for name, value, at in _named(line, SETTINGS, "setting"):
                if name in script.settings:
                    raise line.error(f"{name} is set a second time", at)
                script.settings[name] = value.value
        else:
            _flow(line, script)
        return
    if not (word[0] in "+*." or word[0].isdigit()):
        begin = ("script", "shows", "set", "flow", "+0")
        close = difflib.get_close_matches(word, begin, n=1, cutoff=0.6)
        hint = f"did you mean {close[0]}?" if close else "write e.g. `+0 accept`, or `script`, `shows`, `set`, `flow`"
        raise line.error("a line begins with a time, and this is none", line.tokens[0], hint)
    when_token = line.take("")
    when = _when(line, when_token)
    flow = MAIN
    if line.peek().endswith(":"):
        token = line.take("")
        flow = token.text[:-1]
        if flow not in script.flows:
            raise line.unknown("flow", token, script.flows, 0, len(flow))
    verb = line.take("what happens")
    if verb.text == "established":
        script.steps += _established(line, script, when, flow)
        return
    action = _action(line, verb)
    _check_time(line, when_token, when, action)
    script.steps.append(Step(line.number, line.text, when, flow, action))


def _check_time(line: _Line, token: Token, when: When, action: Action) -> None:
    if not isinstance(action, Await | Check) and when.low != when.high:
        raise line.error("only what is expected can have a range of times", token)
    if isinstance(action, Check) and action.what == "nothing" and when.low != when.high:
        raise line.error("`expect nothing` begins at one time", token)


# ---- times and numbers ----------------------------------------------------------------------------------------------------------


def _ns(line: _Line, token: Token, at: int, text: str) -> int:
    m = TIME.fullmatch(text)
    if m is None:
        raise line.error(f"{text!r} is no time", token, "write seconds, as in 0.04, or with a unit: 40ms, 500us", at, len(text))
    return round(float(m[1]) * UNITS[m[2] or "s"])


def _when(line: _Line, token: Token) -> When:
    text = token.text
    if text == "*":
        return When(0, None, True, text)
    relative = text.startswith("+")
    body, at = (text[1:], 1) if relative else (text, 0)
    low, dots, high = body.partition("..")
    first = _ns(line, token, at, low)
    if not dots:
        return When(first, first, relative, text)
    last = _ns(line, token, at + len(low) + 2, high)
    if last < first:
        raise line.error("this range ends before it begins", token)
    return When(first, last, relative, text)


def _number(line: _Line, token: Token, at: int, text: str) -> int:
    """Sums and differences of products of numbers."""
    words = re.split(r"(?<=[\w*])([+-])", text)
    total, sign = 0, 1
    try:
        for i, word in enumerate(words):
            if i % 2:
                sign = 1 if word == "+" else -1
                continue
            product = sign
            for factor in word.split("*"):
                if not TERM.fullmatch(factor):
                    raise ValueError
                product *= int(factor, 0)
            total += product
    except ValueError:
        raise line.error(
            f"{text!r} is no number", token, "numbers look like 1460, 0x10, 1+10*1460", at, max(1, len(text))
        ) from None
    return total


# ---- NAME=VALUE -----------------------------------------------------------------------------------------------------------------


def _named(line: _Line, known: Mapping[str, Field], what: str) -> Iterable[tuple[str, Value, Token]]:
    """The fields that are left on a line."""
    for token in line.rest():
        m = FIELD.fullmatch(token.text)
        name = m[1] if m else token.text
        if m is None or name not in known:
            raise line.unknown(what, token, known, 0, len(name))
        yield name, _value(line, token, name, known[name], m[2], m[3]), token


def _value(line: _Line, token: Token, name: str, kind: Field, op: str | None, text: str | None) -> Value:
    at = len(name) + len(op or "")
    if op is None or text is None:
        if kind.kind == Kind.FLAG:
            return Value("=", True, name)
        if kind.kind == Kind.STAMPS:
            return Value("=", (Stamp(), Stamp()), name)
        raise line.error(f"`{name}` needs a value: {name}=...", token)
    if kind.kind == Kind.FLAG:
        raise line.error(f"`{name}` has no value", token, "", len(name))
    if not text:
        raise line.error(f"behind `{name}{op}` the value is missing", token)
    if op != "=" and kind.kind != Kind.NUMBER:
        raise line.error(f"`{name}` cannot be compared: write {name}=...", token, "", len(name), len(op))
    if text == language.ANY:
        return Value(op, None, token.text)
    return Value(op, _plain(line, token, at, kind, text), token.text)


def _plain(line: _Line, token: Token, at: int, kind: Field, text: str) -> Any:
    """The value of a field of a kind. Raises ScriptError."""
    if kind.kind == Kind.TIME:
        return _ns(line, token, at, text)
    if kind.kind == Kind.NUMBER:
        return _number(line, token, at, text)
    if kind.kind == Kind.HEX:
        try:
            return bytes.fromhex(text)
        except ValueError:
            raise line.error(f"{text!r} are no bytes in hexadecimal digits", token, "", at) from None
    if kind.kind == Kind.BLOCKS:
        return _blocks(line, token, at, text)
    if kind.kind == Kind.STAMPS:
        return _stamps(line, token, at, text)
    if kind.kind == Kind.SWITCHES:
        words = text.split(",")
        for word in words:
            if word not in kind.words:
                raise line.unknown("option", token, kind.words, at + text.index(word), len(word))
        return [word for word in words if word != "none"]
    if kind.words and text not in kind.words:
        raise line.unknown("value", token, kind.words, at)
    return text


def _blocks(line: _Line, token: Token, at: int, text: str) -> list[tuple[int, int]]:
    blocks = []
    for part in text.split(","):
        m = re.fullmatch(r"(-?[^-]+)-(-?[^-]+)", part)
        if m is None:
            hint = "blocks look like 1001-2001,3001-4001"
            raise line.error(f"{part!r} is no SACK block", token, hint, at + text.index(part), max(1, len(part)))
        blocks.append((_number(line, token, at, m[1]), _number(line, token, at, m[2])))
    return blocks


def _stamps(line: _Line, token: Token, at: int, text: str) -> tuple[Stamp, Stamp]:
    parts = text.split("/")
    if len(parts) > 2:
        raise line.error("timestamps are VALUE/ECHO", token, "", at)
    stamps = []
    for part in parts:
        m = STAMP.fullmatch(part)
        if m is not None:
            stamps.append(Stamp(m[1], int(m[2] or 0)))
        elif part in (language.ANY, ""):
            stamps.append(Stamp())
        else:
            stamps.append(Stamp(None, _number(line, token, at, part)))
    return stamps[0], stamps[1] if len(stamps) == 2 else Stamp()


def _flow(line: _Line, script: Script) -> None:
    token = line.take("the flow's name")
    name = token.text
    if not re.fullmatch(r"[A-Za-z]\w*", name) or (name in script.flows and name != MAIN):
        raise line.error("a flow needs a name of its own", token)
    chosen = {key: int(value.value) for key, value, _ in _named(line, FLOW_SETTINGS, "setting of a flow")}
    number = len(script.flows) if name != MAIN else 0
    script.flows[name] = FlowSpec(name, chosen.get("port", PEER_PORT + number), chosen.get("isn", ISN))


# ---- actions --------------------------------------------------------------------------------------------------------------------


def _action(line: _Line, verb: Token) -> Action:
    if verb.text == "<":
        return _icmp(line) if line.peek() == "icmp" else _sent(line)
    if verb.text == ">":
        return _awaited(line)
    if verb.text == "expect":
        return _check(line)
    if verb.text not in CALLS:
        raise line.unknown("action", verb, ["<", ">", "expect", "established", *CALLS])
    kind, options, _ = CALLS[verb.text]
    argument = 0
    if kind is not None:
        token = line.take(f"the {kind} behind `{verb.text}`")
        argument = int(_plain(line, token, 0, Field(kind, ""), token.text))
    found: dict[str, Value] = {}
    for name, value, _ in _named(line, options, f"option of `{verb.text}`"):
        found[name] = value
    return Call(verb.text, argument, found)


def _flags(line: _Line) -> tuple[int, Token]:
    token = line.take("the flags of the segment")
    if token.text == "NONE":
        return 0, token
    flags, at = 0, 0
    for word in token.text.split(","):
        if word not in FLAGS:
            raise line.unknown("flag", token, FLAGS, at, len(word))
        flags |= FLAGS[word]
        at += len(word) + 1
    return flags, token


def _count(line: _Line) -> int:
    """xN at the end of the line, taken off."""
    m = re.fullmatch(r"x(\d+)", line.tokens[-1].text)
    if m is None:
        return 1
    token = line.tokens.pop()
    if not 1 <= int(m[1]) <= MAX_COUNT:
        raise line.error(f"a step can be repeated 1..{MAX_COUNT} times", token)
    return int(m[1])


def _fields(line: _Line, side: str) -> dict[str, Value]:
    fields: dict[str, Value] = {}
    sent = side == "sent"
    for name, value, token in _named(line, FIELDS, "field"):
        field = FIELDS[name]
        if name in fields and name not in ("nop", "eol"):
            raise line.error(f"`{name}` is there twice", token)
        if not (field.sent if sent else field.expected):
            raise line.error(f"`{name}` is for segments that are {'expected' if sent else 'sent'}", token)
        if sent and (value.op != "=" or (value.any and field.kind != Kind.STAMPS)):
            raise line.error("what is sent has a value, not a range", token)
        # an option that may be there twice keeps its place by a name of its own
        fields[name if name not in fields else f"{name} {len(fields)}"] = value
    return fields


def _sent(line: _Line) -> Send:
    count = _count(line)
    flags, _ = _flags(line)
    return Send(flags, _fields(line, "sent"), count)


def _awaited(line: _Line) -> Await:
    count = _count(line)
    flags, token = _flags(line)
    fields = _fields(line, "expected")
    if flags & ACK and "ack" not in fields:
        raise line.error("a segment with ACK that is expected says what it acknowledges", token, "write ack=N, or ack=* for any")
    return Await(flags & ~PSH, fields, count, bool(flags & PSH))


def _icmp(line: _Line) -> SendIcmp:
    line.take("")
    token = line.take("the kind of the ICMP message")
    if token.text not in language.ICMP_KINDS:
        raise line.unknown("ICMP message", token, language.ICMP_KINDS)
    known = {"seq": FIELDS["seq"], "mtu": Field(Kind.NUMBER, "")}
    found = {name: value.value for name, value, _ in _named(line, known, "field of an ICMP message")}
    return SendIcmp(token.text, found.get("seq"), found.get("mtu", 0))


def _check(line: _Line) -> Check:
    token = line.take("what is expected")
    if token.text not in CHECKS:
        raise line.unknown("expectation", token, CHECKS)
    kind, _ = CHECKS[token.text]
    argument: Any = None
    columns: dict[str, Value] = {}
    if token.text == "nothing":
        word = line.take("`for TIME`")
        if word.text != "for":
            raise line.error("write `expect nothing for TIME`", word)
        at = line.take("a time")
        argument = _ns(line, at, 0, at.text)
    elif token.text == "about":
        columns = _columns(line)
        if not columns:
            line.take("a column of the connection's row, as in acked=1461")
    elif kind is not None:
        word = line.take(f"the {kind} behind `{token.text}`")
        argument = _plain(line, word, 0, Field(kind, ""), word.text)
        if token.text == "error" and not hasattr(errno, str(argument)):
            raise line.unknown("error", word, sorted(errno.errorcode.values()))
    extra = line.rest()
    if extra:
        raise line.error("this is one word too many", extra[0])
    return Check(token.text, argument, columns)


def _columns(line: _Line) -> dict[str, Value]:
    columns: dict[str, Value] = {}
    for token in line.rest():
        m = FIELD.fullmatch(token.text)
        if m is None or m[2] is None:
            raise line.error("a column and its value look like acked=1461, or win>=2920", token)
        columns[m[1]] = _value(line, token, m[1], Field(Kind.NUMBER, ""), m[2], m[3])
    return columns


# ---- the handshake in one line --------------------------------------------------------------------------------------------------


def _established(line: _Line, script: Script, when: When, flow: str) -> list[Step]:
    """The steps that `established` stands for."""
    if when.low != when.high:
        raise line.error("only what is expected can have a range of times", line.tokens[0])
    offered = {name: f for name, f in FIELDS.items() if f.option or name == "win"}
    fields: dict[str, Value] = {}
    for name, value, token in _named(line, offered | HANDSHAKE, "field of `established`"):
        if name in fields and name not in ("nop", "eol"):
            raise line.error(f"`{name}` is there twice", token)
        fields[name] = value
    chosen = {name: fields.pop(name) for name in HANDSHAKE if name in fields}
    rtt = int(chosen["rtt"].value) if "rtt" in chosen else UNITS["ms"] * 10
    fields.setdefault("mss", Value("=", 1460, "mss=1460"))
    soon, later = When(0, 0, True, "+0"), When(rtt, rtt, True, f"+{rtt / NS:g}")
    one, zero = Value("=", 1, "ack=1"), Value("=", 0, "seq=0")
    anything = {"anyopts": Value("=", True, "anyopts")}
    ecn = "ecn" in chosen
    offer = "SYN,ECE,CWR" if ecn else "SYN"
    if "active" in chosen:
        ours = "SYN,ECE,CWR" if "ecn" in script.settings.get("options", ()) else "SYN"
        steps: list[tuple[When, str, Action]] = [
            (when, "connect", Call("connect")),
            (soon, f"> {ours} seq=0 anyopts", Await(_bits(ours), {"seq": zero} | anything)),
            (later, "< SYN,ACK", Send(SYN | ACK | (ECE if ecn else 0), fields)),
            (soon, "> ACK ack=1", Await(ACK, {"ack": one})),
            (soon, "expect connected", Check("connected")),
        ]
    else:
        answer = "SYN,ACK,ECE" if ecn else "SYN,ACK"
        steps = [
            (when, f"< {offer}", Send(_bits(offer), fields)),
            (soon, f"> {answer} seq=0 ack=1 anyopts", Await(_bits(answer), {"seq": zero, "ack": one} | anything)),
            (later, "< ACK", Send(ACK, {})),
            (soon, "accept", Call("accept")),
        ]
        if not any(isinstance(step.action, Call) and step.action.verb == "listen" for step in script.steps):
            steps = [(when, "listen", Call("listen")), (soon, *steps[0][1:]), *steps[1:]]
    return [Step(line.number, f"{at.text} {text}", at, flow, action) for at, text, action in steps]


def _bits(flags: str) -> int:
    return sum(FLAGS[word] for word in flags.split(","))
