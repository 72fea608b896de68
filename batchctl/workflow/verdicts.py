"""The verdict of `compare` in words: for a terminal, as JUnit, Markdown and HTML. One object, one wording of each figure.

No row text and no free answers: rows are named by their source id, labels only as counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from batchctl.files import replacing
from batchctl.model.errors import UsageError
from batchctl.prices import picos, usd_text
from batchctl.report_html import compare_page
from batchctl.workflow.gates import State

Verdict = Mapping[str, Any]
WORST = 5
WORDS = {State.PASS: "PASS", State.FAIL: "FAIL", State.UNDECIDED: "UNDECIDED"}


def percent(value: float | None) -> str:
    """`92.5 %`; `-` when there is none."""
    return "-" if value is None else f"{value * 100:.1f} %"


def interval(one: Mapping[str, Any] | None) -> str:
    """The ends of an interval in percent, without the sign."""
    return "-" if one is None or one["low"] is None else f"{one['low'] * 100:.1f} - {one['high'] * 100:.1f}"


def money(amount: str | None) -> str:
    """A decimal string of USD as people read it."""
    return "unknown" if amount is None else usd_text(picos(Decimal(amount)))


def signed(value: float | None) -> str:
    """A difference in percentage points, with its sign."""
    return "-" if value is None else f"{value * 100:+.1f}"


# --- tables -----------------------------------------------------------------------------------------------------------


def overview(verdict: Verdict) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the first table: one line a contestant."""
    gold = verdict["contestants"][0]["accuracy"] is not None
    head = ["model", *(["correct", "accuracy", "95 % interval"] if gold else []), "valid", "refused", "truncated",
            "per 1,000 completed", "tokens in", "out", "p90 s"]  # fmt: skip
    rows = []
    for one in verdict["contestants"]:
        name = one["name"] if one["model"] in one["name"] else f"{one['name']} ({one['model']})"
        right = one["accuracy"]
        rows.append([
            name,
            *([f"{right['hits']:,}", percent(right["value"]), interval(right)] if gold else []),
            *(f"{one[kind]['hits']:,}" for kind in ("schema_valid", "refused", "truncated")),
            money(one["usd_per_1000_completed"]),
            *("-" if one[kind] is None else f"{one[kind]:,.0f}" for kind in ("input_tokens", "output_tokens", "p90_seconds")),
        ])  # fmt: skip
    return head, rows


def paired(verdict: Verdict) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the second: each contestant beside the baseline, on the same rows."""
    rows = []
    for one in verdict["contestants"]:
        pair = one["paired"]
        if pair is None:
            continue
        same = percent(pair["agreement"]["value"])
        if pair["better"] is None:
            rows.append([one["name"], same, interval(pair["agreement"])])
            continue
        difference = f"{signed(pair['difference'])} ({signed(pair['low'])} .. {signed(pair['high'])})"
        rows.append([one["name"], f"{pair['better']:,}", f"{pair['worse']:,}", difference, f"{pair['p']:.2g}", same])
    gold = verdict["contestants"][0]["accuracy"] is not None
    head = ["better", "worse", "difference, points", "p", "same answer"] if gold else ["same answer", "95 % interval"]
    return [f"paired with {verdict['baseline']}", *head], rows


def gate_words(gate: Mapping[str, Any]) -> str:
    """What a gate saw: `90.5 % (87.2 - 93.0), 1,210 more rows would decide`."""
    if gate["low"] is None:
        return "unknown" if gate["value"] is None else f"{gate['value']:g}"
    shown = signed(gate["value"]) if gate["metric"] == "difference" else percent(gate["value"])
    text = f"{shown} ({interval(gate)})"
    if gate["state"] == State.UNDECIDED:
        more = gate["more_rows"]
        return text + (
            ", no number of rows decides at these shares" if more is None else f", {more:,} more rows would decide"
        )
    return text


def confusions(one: Mapping[str, Any]) -> list[tuple[str, str, int]]:
    """What was taken for what, most often first."""
    cells = [
        (cell["gold"], cell["answer"], cell["rows"]) for cell in one["confusion"] if cell["gold"] != cell["answer"]
    ]
    return [(was, "no usable answer" if said is None else said, rows) for was, said, rows in cells]


def lines_of(verdict: Verdict) -> list[str]:
    """The summary for a terminal."""
    lines = []
    gold = verdict.get("gold")
    if gold is not None:
        lines.append(f"{gold['rows']:,} gold rows, joined by source id: {gold['matched']:,} matched, "
                     f"{gold['missing']:,} missing, {gold['extra']:,} extra")  # fmt: skip
    else:
        lines.append(f"{verdict['rows']:,} rows that every contestant answered; no gold labels")
    for head, rows in (overview(verdict), paired(verdict)):
        if rows:
            lines += _aligned([head, *rows])
    current = None
    for gate in verdict["gates"]:
        if gate["contestant"] != current:
            current = gate["contestant"]
            lines.append(f"Gates for {current}")
        lines.append(f"  {WORDS[State(gate['state'])]:<10}{gate['gate']}   {gate_words(gate)}")
    for one in verdict["contestants"]:
        worst = confusions(one)[:WORST]
        if worst:
            lines.append(f"Worst confusions for {one['name']}: " + ", ".join(f"{a} -> {b} {n:,}" for a, b, n in worst))
    failed = sum(one["state"] == State.FAIL for one in verdict["gates"])
    unsure = sum(one["state"] == State.UNDECIDED for one in verdict["gates"])
    if failed or unsure:
        word = "" if not unsure else f", {unsure} undecided"
        lines.append(f"Gates: {failed} of {len(verdict['gates'])} failed{word}")
    return lines


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = []
    for first, *others in rows:
        cells = [first.ljust(widths[0]), *(one.rjust(width) for one, width in zip(others, widths[1:], strict=True))]
        lines.append("  " + "  ".join(cells))
    return lines


# --- files ------------------------------------------------------------------------------------------------------------


def write_files(
    verdict: Verdict, junit_file: str | None, markdown_file: str | None, html_file: str | None
) -> list[str]:
    """Write what was asked for; a line for each."""
    made = []
    wanted = (("--junit", junit_file, junit), ("--markdown", markdown_file, markdown), ("--html", html_file, html))
    for option, name, _ in wanted:
        if name is not None and not Path(name).absolute().parent.is_dir():
            raise UsageError(f"there is no directory `{Path(name).parent}`", where=option, effect="nothing was written",
                             hint="create it, or name another place")  # fmt: skip
    for _, name, form in wanted:
        if name is not None:
            with replacing(Path(name), keep_mode=True) as out:
                out.write(form(verdict).encode())
            made.append(f"Wrote {name}")
    return made


def junit(verdict: Verdict) -> str:
    """One suite a contestant, one case a gate. What is undecided fails too, unless it was said to pass."""
    suites = []
    for one in verdict["contestants"]:
        gates = [gate for gate in verdict["gates"] if gate["contestant"] == one["name"]]
        cases, failures, skipped = [], 0, 0
        for gate in gates:
            said = f"{gate['gate']}: {gate_words(gate)}"
            inside = ""
            if gate["state"] == State.UNDECIDED and verdict.get("undecided_passes"):
                skipped += 1
                inside = f"<skipped message={_attribute(said)}/>"
            elif gate["state"] != State.PASS:
                failures += 1
                inside = f"<failure type={_attribute(gate['state'])} message={_attribute(said)}>{_xml(said)}</failure>"
            cases.append(
                f"<testcase classname={_attribute(one['name'])} name={_attribute(gate['gate'])}>{inside}</testcase>"
            )
        names = ("run", "provider", "model", "prompt_version", "schema_version")
        properties = "".join(
            f"<property name={_attribute(name)} value={_attribute(str(one[name] or ''))}/>" for name in names
        )
        wrong = _xml("\n".join(["wrong rows, the first of them:", *one["wrong"]])) if one["wrong"] else ""
        suites.append(
            f'<testsuite name={_attribute(one["name"])} tests="{len(gates)}" failures="{failures}" errors="0" '
            f'skipped="{skipped}"><properties>{properties}</properties>{"".join(cases)}'
            f"<system-out>{wrong}</system-out></testsuite>"
        )
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name="batchctl compare">{"".join(suites)}</testsuites>\n'
    )


def _xml(text: str) -> str:
    """Text for XML 1.0, which has no place for control characters."""
    return escape("".join(one if one in "\t\n" or " " <= one < "\ud800" or "\ue000" <= one <= "\ufffd" or one > "\uffff"
                          else f"\\u{ord(one):04x}" for one in text))  # fmt: skip


def _attribute(text: str) -> str:
    return quoteattr(_xml(text).replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"))


def markdown(verdict: Verdict) -> str:
    """A summary for a pull request."""
    word = {"pass": "passed", "fail": "failed", "undecided": "is undecided"}[verdict["verdict"]]
    lines = ["## batchctl compare", "", f"The comparison {word}." if verdict["gates"] else "No gate was asked for.", ""]
    gold = verdict.get("gold")
    lines += [
        f"{verdict['rows']:,} rows"
        + (f", gold labels from {_cell(gold['from'])}" if gold else ", no gold labels")
        + ".",
        "",
    ]
    for head, rows in (overview(verdict), paired(verdict)):
        if rows:
            lines += [_line(head), _line(["---", *["---:"] * (len(head) - 1)]), *(_line(row) for row in rows), ""]
    if verdict["gates"]:
        lines += [_line(["gate", "model", "state", "seen"]), _line(["---"] * 4)]
        lines += [
            _line([gate["gate"], gate["contestant"], WORDS[State(gate["state"])], gate_words(gate)])
            for gate in verdict["gates"]
        ]
        lines.append("")
    methods = verdict["methods"]
    lines.append(f"Intervals: 95 %, {methods['shares']}; differences: {methods['difference']}; p: {methods['p']}.")
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_cell(one) if not set(one) <= set("-:") or len(one) < 3 else one for one in cells) + " |"


def _cell(text: str) -> str:
    """Text that cannot end a cell or become markup."""
    for one in "\\`*_{}[]<>|#~":
        text = text.replace(one, "\\" + one)
    return " ".join(text.split())


def html(verdict: Verdict) -> str:
    """One self-contained page."""
    labels = [
        (one["name"], [
            [label, f"{found['support']:,}", percent(found["recall"]["value"]), interval(found["recall"]),
             percent(found["precision"]["value"]), interval(found["precision"])]
            for label, found in one["labels"].items()
        ])
        for one in verdict["contestants"] if one["labels"]
    ]  # fmt: skip
    mixed = [(one["name"], [[a, b, f"{n:,}"] for a, b, n in confusions(one)]) for one in verdict["contestants"]]
    gates = [
        [gate["gate"], gate["contestant"], WORDS[State(gate["state"])], gate_words(gate)] for gate in verdict["gates"]
    ]
    bars = [
        (one["name"], one["accuracy"]["value"] or 0.0, f"{percent(one['accuracy']['value'])} ({interval(one['accuracy'])})")
        for one in verdict["contestants"] if one["accuracy"] is not None
    ]  # fmt: skip
    simulated = any(one["simulated"] for one in verdict["contestants"])
    return compare_page(
        verdict["verdict"] if gates else "", verdict["rows"], simulated, bars, overview(verdict), paired(verdict), gates,
        labels, mixed, verdict["methods"],
    )  # fmt: skip
