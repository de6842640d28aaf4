"""The laboratory's script language: what it refuses and how it says so, what it sees, what it shows."""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace
from pathlib import Path

import pytest

from chamelio.cli import main
from chamelio.lab import ScriptError, parse, run_script
from chamelio.lab.language import CALLS, CHECKS, FIELDS, FLOW_SETTINGS, ICMP_KINDS, SETTINGS, Await, Call, Script, Send
from chamelio.lab.pattern import OURS, PEERS, first_difference, pattern
from chamelio.lab.segments import ACK, ECE, ICMP, PSH, SYN, Malformed, Segment, decode, encode, icmp_about, sack_option

DOCS = Path(__file__).parent.parent.parent / "docs"


def one(*lines: str) -> Script:
    """A script of these lines."""
    (script,) = parse("\n".join(("script a", *lines)), "x.tcp")
    return script


# ---- parsing --------------------------------------------------------------------------------------------------------------------

# What stands in the line, what is marked in it, what the message and the hint have.
WRONG: dict[str, tuple[str, str]] = {
    "+0 acept": ("acept", "no action 'acept'|did you mean accept?"),
    "0,1 accept": ("0,1", "'0,1' is no time|40ms"),
    "accept": ("accept", "begins with a time|`+0 accept`"),
    "sett rto_min=1s": ("sett", "begins with a time|did you mean set?"),
    "+1..0.5 > SYN": ("+1..0.5", "ends before it begins"),
    "+0..1 < SYN": ("+0..1", "only what is expected can have a range"),
    "* accept": ("*", "only what is expected can have a range"),
    "+0": ("", "what happens is missing"),
    "+0 <": ("", "the flags of the segment is missing"),
    "+0 < SIN": ("SIN", "no flag 'SIN'|did you mean SYN?"),
    "+0 < SYN,AKC": ("AKC", "no flag 'AKC'|did you mean ACK?"),
    "+0 < SYN sqe=1": ("sqe", "no field 'sqe'|did you mean seq?"),
    "+0 < SYN seq": ("seq", "`seq` needs a value"),
    "+0 < SYN seq=": ("seq=", "the value is missing"),
    "+0 < SYN seq=1x": ("1x", "'1x' is no number|1+10*1460"),
    "+0 < SYN seq>=1": ("seq>=1", "a value, not a range"),
    "+0 < SYN seq=*": ("seq=*", "a value, not a range"),
    "+0 < SYN seq=1 seq=2": ("seq=2", "`seq` is there twice"),
    "+0 < SYN sackok=1": ("=1", "`sackok` has no value"),
    "+0 < SYN anyopts": ("anyopts", "for segments that are expected"),
    "+0 > SYN badsum": ("badsum", "for segments that are sent"),
    "+0 > ACK": ("ACK", "says what it acknowledges|ack=* for any"),
    "+0 > ACK ack=1 ecn=cee": ("cee", "no value 'cee'|did you mean ce?"),
    "+0 < ACK sack=1-2,3": ("3", "'3' is no SACK block|1001-2001"),
    "+0 < ACK ts=1/2/3": ("1/2/3", "VALUE/ECHO"),
    "+0 < ACK opt=0": ("0", "no bytes in hexadecimal"),
    "+0 < ACK x0": ("x0", "1..10000 times"),
    "+0 b: accept": ("b", "no flow 'b'|main"),
    "+0 write": ("", "the number behind `write` is missing"),
    "+0 write ten": ("ten", "'ten' is no number"),
    "+0 listen prot=7": ("prot", "no option of `listen` 'prot'|did you mean port?"),
    "+0 expect": ("", "what is expected is missing"),
    "+0 expect conected": ("conected", "no expectation 'conected'|did you mean connected?"),
    "+0 expect eof now": ("now", "one word too many"),
    "+0 expect error ECONRESET": ("ECONRESET", "no error 'ECONRESET'|did you mean ECONNRESET?"),
    "+0 expect nothing 1": ("1", "`expect nothing for TIME`"),
    "+0 expect nothing for ever": ("ever", "'ever' is no time"),
    "+0 expect about acked": ("acked", "look like acked=1461"),
    "+0 < icmp port-unreachabel": ("port-unreachabel", "no ICMP message|did you mean port-unreachable?"),
    "+0 established passive": ("passive", "no field of `established` 'passive'|did you mean active?"),
    "set rto_mni=1": ("rto_mni", "no setting 'rto_mni'|did you mean rto_min?"),
    "set rto_min=fast": ("fast", "'fast' is no time"),
    "set options=sack,ecm": ("ecm", "no option 'ecm'|did you mean ecn?"),
    "set mss=1 mss=2": ("mss=2", "set a second time"),
    "flow main isn=x": ("x", "'x' is no number"),
    "flow 1": ("1", "a name of its own"),
}


@pytest.mark.parametrize("line", WRONG)
def test_what_is_wrong_is_marked_where_it_is(line: str) -> None:
    marked, words = WRONG[line]
    message, _, hint = words.partition("|")
    with pytest.raises(ScriptError) as caught:
        parse(f"script a\n  {line}   # and so on\n+0 accept\n", "x.tcp")
    error = caught.value
    assert message in error.message and hint in error.hint
    assert (error.path, error.line) == ("x.tcp", 2)
    place, source, carets, *_ = str(error).splitlines()
    assert place.startswith(f"x.tcp:2:{error.column}: ")
    begin, end = carets.index("^"), carets.rindex("^") + 1
    assert source[begin:end] == marked or (not marked and begin == 5 + 2 + len(line) + 1)


WHOLE: dict[str, str] = {
    "+0 accept": "begins with the name of its first script",
    "script": "the script's name is missing",
    "script a\nset mss=1": "has no steps",
    "script a\n+0 accept\nscript a\n+0 accept": "has this name",
    "script a\n+0 accept\nset mss=1": "stands before the first step",
}


@pytest.mark.parametrize("text", WHOLE)
def test_a_file_that_is_wrong_as_a_whole(text: str) -> None:
    with pytest.raises(ScriptError, match=WHOLE[text]):
        parse(text)


def test_whatever_is_in_a_file_is_a_script_or_an_error() -> None:
    chosen = random.Random(1)
    words = [
        *WRONG,
        *CALLS,
        *CHECKS,
        *(f"{name}=1" for name in FIELDS),
        "+0",
        "<",
        ">",
        "SYN",
        "x3",
        "b:",
        "=",
        "#",
        "*",
        "+",
        "$t",
    ]
    for _ in range(3000):
        lines = (" ".join(chosen.choices(words, k=chosen.randrange(1, 6))) for _ in range(3))
        try:
            parse("script a\n" + "\n".join(lines))
        except ScriptError as error:
            assert str(error)


def test_numbers_can_be_sums() -> None:
    script = one("+0 < ACK seq=1+10*1460-1 len=0x10 x3")
    action = script.steps[0].action
    assert isinstance(action, Send)
    assert (action.fields["seq"].value, action.fields["len"].value, action.count) == (14600, 16, 3)


def test_times_have_units_and_ranges() -> None:
    script = one("1.5 accept", "+40ms accept", "+0.1..0.2 > SYN", "* > SYN")
    whens = [(s.when.low, s.when.high, s.when.relative) for s in script.steps]
    assert whens == [
        (1_500_000_000,) * 2 + (False,),
        (40_000_000,) * 2 + (True,),
        (100_000_000, 200_000_000, True),
        (0, None, True),
    ]


def test_established_listens_once() -> None:
    calls = [s.action.verb for s in one("flow b", "+0 established", "+0 b: established").steps if isinstance(s.action, Call)]
    assert calls == ["listen", "accept", "accept"]


def test_established_active_offers_ecn_only_when_it_is_switched_on() -> None:
    flags = [
        next(s.action.flags for s in one(f"set options={options}", "+0 established active").steps if isinstance(s.action, Await))
        for options in ("sack", "sack,ecn")
    ]
    assert flags[0] == SYN and flags[1] & ECE


def test_flags_of_pushed_data_matter_only_when_they_are_asked_for() -> None:
    steps = one("+0 > ACK ack=1", "+0 > ACK,PSH ack=1").steps
    first, second = (step.action for step in steps)
    assert isinstance(first, Await) and isinstance(second, Await)
    assert not first.push and second.push and not second.flags & PSH


# ---- segments -------------------------------------------------------------------------------------------------------------------


def a_segment(**changes: object) -> Segment:
    options = ((2, b"\x05\xb4"), (4, b""), (8, bytes(range(8))))
    about = {"seq": 2**32 - 1, "ack": 5, "flags": SYN | ACK, "window": 7, "options": options, "payload": b"hello", "ecn": 2}
    return Segment("10.0.0.1", "10.0.0.2", 7, 5000, **{**about, **changes})  # type: ignore[arg-type]


def test_a_segment_comes_back_as_it_was() -> None:
    came = decode(encode(a_segment()))
    assert came == replace(a_segment(), option_bytes=16)
    assert came.timestamps == (0x00010203, 0x04050607)
    blocks = [(1, 2), (2**32 - 1, 3)]
    assert decode(encode(a_segment(options=(sack_option(blocks),)))).sack_blocks == blocks


BROKEN = {
    "wrong checksum of the segment": encode(a_segment(), bad_checksum=True),
    "data offset of 16": encode(a_segment(), data_offset=4),
    "data offset of 60": encode(a_segment(options=(), payload=b""), data_offset=15),
    "length of the one at byte 0": encode(a_segment(options=()), raw_options=b"\x02\x00\x00\x00"),
    "wrong checksum of the IP header": encode(a_segment())[:8] + b"\x01" + encode(a_segment())[9:],
    "there are 62": encode(a_segment()) + b"x",
    "no IPv4 header": b"",
}


@pytest.mark.parametrize("why", BROKEN)
def test_what_is_no_segment_is_said(why: str) -> None:
    with pytest.raises(Malformed, match=why):
        decode(BROKEN[why])


@pytest.mark.parametrize("at", range(20, 61))
def test_any_wrong_bit_of_a_segment_is_noticed(at: int) -> None:
    packet = bytearray(encode(a_segment()))
    packet[at] ^= 1 << at % 8
    with pytest.raises(Malformed):
        decode(bytes(packet))


def test_icmp_quotes_the_segment() -> None:
    packet = encode(a_segment())
    message = icmp_about(packet, "10.0.0.2", "fragmentation-needed", mtu=1000)
    assert message[9] == 1 and message[20:22] == bytes(ICMP["fragmentation-needed"])
    assert message[26:28] == (1000).to_bytes(2, "big") and message[28:] == packet[:28]


def test_each_byte_of_the_pattern_has_its_place() -> None:
    whole = pattern(0, 100_000, OURS).tobytes()
    assert pattern(777, 1000, OURS).tobytes() == whole[777:1777]
    assert first_difference(whole[5:], 5, OURS) is None
    assert first_difference(whole[:500] + b"\0" + whole[501:], 0, OURS) in (500, None)
    for shift in (1, 2, 255, 256, 512, 536, 1448, 1460, 4096, 65536):
        same = sum(a == b for a, b in zip(whole, whole[shift:], strict=False)) / (len(whole) - shift)
        assert same < 0.02, shift
    other = pattern(0, 100_000, PEERS).tobytes()
    assert all(a != b for a, b in zip(whole, other, strict=True))


# ---- running --------------------------------------------------------------------------------------------------------------------

# What a script claims that is not so, and what is said of it.
FALSE: dict[str, tuple[str, list[str]]] = {
    "a field": (
        "+0 < SYN mss=1460\n+0 > SYN,ACK ack=2 mss=1400",
        ["expected  +0  > SYN,ACK ack=2 mss=1400", "came ", "ack is 1, and ack=2 was expected", "mss is 1460, and mss=1400"],
    ),
    "the flags": ("+0 < SYN mss=1460\n+0 > RST,ACK ack=1 mss=1460", ["the flags are SYN,ACK, not RST,ACK"]),
    "an option that is missing": ("+0 < SYN\n+0 > SYN,ACK ack=1 mss=1460 sackok", ["sackok is missing"]),
    "an option too many": ("+0 < SYN sackok\n+0 > SYN,ACK ack=1 mss=1460", ["sackok was not expected"]),
    "the time": ("+0 < SYN\n+0.5 > SYN,ACK ack=1 mss=1460", ["it came at 0.0000", "not at 0.500000"]),
    "something that does not come": ("+0.01 < RST\n+0.1 > SYN,ACK ack=1", ["but none came until 0.112"]),
    "nothing, and something comes": ("+0 < SYN\n+0 expect nothing for 0.1", ["> SYN,ACK seq=0 ack=1", "nobody expected for 0.1 s"]),
    "something unmentioned": ("+0 < SYN\n+0.1 < ACK", ["> SYN,ACK seq=0 ack=1", "nobody expected before 0.1"]),
    "the end, and something comes": ("+0 < SYN", ["nobody expected at the end of the script"]),
    "bytes that are not there": ("+0 established\n+0 < ACK len=10\n+0 read 11", ["10 bytes can be read, not 11"]),
    "other bytes": ("+0 established\n+0 < ACK len=10 fill=1\n+0 read 10", ["the byte at sequence number 1 is not what the peer"]),
    "a connection that is not there": ("+0 accept", ["there is no connection to accept"]),
    "a call without a connection": ("+0 write 10", ["the application has no connection yet"]),
    "a state": ("+0 established\n+0 expect state CLOSE_WAIT", ["its state is ESTABLISHED, not CLOSE_WAIT"]),
    "a column": ("+0 established\n+0 expect about acked=2", ["acked is 1, not 2"]),
    "a column that there is not": ("+0 established\n+0 expect about ackd=2", ["no column 'ackd'; did you mean acked?"]),
    "an error that nobody expects": ("+0 established\n+0 < RST", ["the application of main was told ECONNRESET"]),
    "another error": ("+0 established\n+0 < RST\n+0 expect error EPIPE", ["it has ended: ECONNRESET, not EPIPE"]),
    "what has happened before already": ("+0 established\n+0 < FIN,ACK\n+0 > ACK ack=2\n+1 expect eof", ["`eof` was so before"]),
    "a time that has passed": ("1 < RST\n0.5 < RST", ["has passed"]),
    "a window that cannot be said": ("+0 established wscale=7\n+0 < ACK win=100", ["use a multiple of 128"]),
    "a name without a value": ("+0 established ts\n+0 < ACK ts=$x/1", ["no segment has given $x a value yet"]),
}


@pytest.mark.parametrize("what", FALSE)
def test_what_is_not_so_is_said_with_all_that_came_before(what: str) -> None:
    text, messages = FALSE[what]
    lines = text.splitlines()
    script = one("shows RFC 9293", *([] if "established" in text else ["+0 listen"]), *lines)
    result = run_script(script)
    assert not result.ok and result.error is not None
    report = str(result)
    for message in messages:
        assert message in report
    at = script.line if "nobody expected at the end" in report or "was told" in report else script.steps[-1].line
    assert report.startswith(f"x.tcp:{at}: a  (RFC 9293)\n")
    assert "so far:" in report and "app  listen" in report


def test_a_trace_is_in_the_words_of_scripts() -> None:
    steps = ["+0 listen", "+0 < SYN win=65535 mss=1460 sackok", "+0 > SYN,ACK ack=1 mss=1460 sackok", "+0.01 < ACK", "+0 accept"]
    steps += ["+0 < ACK seq=11 len=10", "+0 > ACK ack=1 sack=11-21", "+0 write 10", "+0 > ACK len=10 ack=1"]
    first = run_script(one(*steps))
    assert first.ok, str(first)
    again = [f"{r.time / 1e9:.6f} {r.text if r.side == 'app' else f'{r.side} {r.text}'}" for r in first.trace if "(" not in r.text]
    second = run_script(one(*again))
    assert second.ok, str(second)
    assert [r.text for r in second.trace] == [r.text for r in first.trace]


def test_a_run_repeats_exactly() -> None:
    script = one(
        "+0 established sackok ts wscale=7", "+0 write 14480", "+0 > ACK ack=1 len=1448 x10", "* > ACK seq=1 len=1448 ack=1"
    )
    traces = [run_script(script).trace_lines() for _ in range(2)]
    assert traces[0] == traces[1] and len(traces[0]) > 15


# ---- the command ----------------------------------------------------------------------------------------------------------------

GOOD = "script well\nshows RFC 9293\n+0 established\n+0 < ACK,PSH len=5\n+0 read 5\n+0.04 > ACK ack=6\n"
BAD = GOOD.replace("well", "ill").replace("ack=6", "ack=7")


def test_the_command_runs_scripts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = tmp_path / "good.tcp", tmp_path / "bad.tcp"
    good.write_text(GOOD)
    bad.write_text(GOOD + BAD)
    assert main(["lab", "run", str(good)]) == 0
    assert "1 passed, 0 failed" in capsys.readouterr().out
    assert main(["lab", "run", "--trace", str(good)]) == 0
    assert "<    PSH,ACK seq=1 len=5 ack=1" in capsys.readouterr().out
    assert main(["lab", "run", str(bad)]) == 1
    out = capsys.readouterr().out
    assert f"{bad}:12: ill" in out and "ack is 6, and ack=7 was expected" in out and "1 passed, 1 failed" in out
    assert main(["lab", "run", "--only", "well", str(bad)]) == 0
    capsys.readouterr()
    assert main(["lab", "run", str(bad), "-o", "json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["passed"], found["failed"]) == (1, 1)
    assert [s["ok"] for s in found["scripts"]] == [True, False]
    assert found["scripts"][1]["line"] == 12 and found["scripts"][1]["trace"][-1]["text"].startswith("ACK seq=1 ack=6")


def test_the_command_says_what_it_cannot_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = tmp_path / "wrong.tcp"
    wrong.write_text("script a\n+0 acept\n")
    assert main(["lab", "run", str(wrong)]) == 2
    err = capsys.readouterr().err
    assert f"{wrong}:2:4: there is no action 'acept'" in err and "    ^^^^^" in err and "did you mean accept?" in err
    assert main(["lab", "run", str(wrong), "-o", "json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["line"], error["column"], error["exit"]) == (2, 4, 2)
    assert main(["lab", "run", str(tmp_path / "none.tcp")]) == 2
    assert main(["lab", "run", str(tmp_path)]) == 2
    wrong.write_text(GOOD)
    assert main(["lab", "run", str(wrong), "--only", "xyz"]) == 2
    assert main(["lab", "run", str(wrong), "--protocol", "udp"]) == 2
    assert "is no TCP" in capsys.readouterr().err


# ---- the page -------------------------------------------------------------------------------------------------------------------


def test_the_reference_has_every_word_of_the_language() -> None:
    page = (DOCS / "laboratory.md").read_text()
    for table in (FIELDS, SETTINGS, FLOW_SETTINGS, CALLS, CHECKS, ICMP_KINDS):
        for word in table:
            assert f"`{word}" in page, word


BLOCK = re.compile(r"^```(\w+)(?: file=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_page_can_be_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    out, languages = "", []
    for language, file, content in BLOCK.findall((DOCS / "laboratory.md").read_text()):
        languages.append(language)
        if language == "tcp":
            (tmp_path / (file or "other.tcp")).write_text(content)
            assert main(["lab", "run", file or "other.tcp"]) == 0
        elif language == "python":
            exec(compile(content, "laboratory.md", "exec"), {})
        elif language == "sh":
            capsys.readouterr()
            for line in content.splitlines():
                assert main(line.split()[1:]) == 0, line
            out = capsys.readouterr().out
        else:
            assert re.sub(r"\d+", "N", content) == re.sub(r"\d+", "N", out)
    assert set(languages) == {"tcp", "sh", "text", "python"}
