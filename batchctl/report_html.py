"""The report as one page of HTML: inline SVG, no script, nothing loaded from anywhere, every value also in a table.

Everything that is not a literal here passes `escape`. The page is for a browser, a print-out and a screen reader: light and
dark, narrow and wide, headings in order, each chart named and followed by its table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any

MOST_CHUNKS = 200
Usd = Callable[[str | None], str]
STATES = {
    "completed": "completed",
    "published": "published",
    "review_required": "in review",
    "invalid_output": "invalid output",
    "provider_error": "provider error",
    "rejected": "rejected",
    "held": "held",
    "submitted": "submitted",
    "queued": "queued",
}
_COLOURS = {"completed": "good", "published": "good", "review_required": "warn", "invalid_output": "bad",
            "provider_error": "bad", "rejected": "bad"}  # fmt: skip
_STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#57606a;--line:#d0d7de;--ground:#fff;--card:#f6f8fa;--good:#1a7f37;
--warn:#9a6700;--bad:#cf222e;--plain:#0969da}
@media (prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9198a1;--line:#3d444d;--ground:#0d1117;--card:#151b23;
--good:#3fb950;--warn:#d29922;--bad:#f85149;--plain:#4493f8}}
*{box-sizing:border-box}body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:60rem;margin:0 auto;padding:1.5rem 1rem 3rem}h1{font-size:1.35rem;margin:0}
h2{font-size:1.1rem;margin:2.2rem 0 .6rem;border-bottom:1px solid var(--line);padding-bottom:.3rem}
.soft{color:var(--soft)}.head{font-size:2.4rem;font-weight:650;line-height:1.2;margin:1rem 0 0}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;margin:.6rem 0;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--soft);padding:.2rem 0}
th,td{text-align:left;padding:.3rem .8rem .3rem 0;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:600}td.n,th.n{text-align:right}td.t{white-space:pre-wrap;overflow-wrap:anywhere;min-width:14rem}
svg{display:block;width:100%;height:auto;margin:.4rem 0}svg text{fill:var(--ink);font:13px system-ui,sans-serif}
.good{fill:var(--good)}.warn{fill:var(--warn)}.bad{fill:var(--bad)}.plain{fill:var(--plain)}.rest{fill:var(--line)}
@media (max-width:40rem){svg text{font-size:19px}}
@media print{main{max-width:none;padding:0}h2{break-after:avoid}tr{break-inside:avoid}}
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(facts: Mapping[str, Any], usd: Usd) -> str:
    """The whole page. `facts` are those of `report --json`; `usd` words one of its decimal strings, or null."""
    parts = [
        _head(facts, usd),
        _balance(facts["balance"]),
        _spend(facts["spend"], facts["cost"], usd),
        _forecast(facts["forecast"], usd),
        _failures(facts["failures"], facts["attempts"]),
        _turnaround(facts["turnaround"]),
        _chunks(facts["chunks"], usd),
        _texts(facts.get("failed_rows")),
        _provenance(facts),
    ]
    return _shell(f"batchctl report: {facts['run']}", parts)


Table = tuple[Sequence[str], Sequence[Sequence[str]]]


def compare_page(
    state: str,
    rows: int,
    simulated: bool,
    bars: Sequence[tuple[str, float, str]],
    overview: Table,
    paired: Table,
    gates: Sequence[Sequence[str]],
    labels: Sequence[tuple[str, Sequence[Sequence[str]]]],
    mixed: Sequence[tuple[str, Sequence[Sequence[str]]]],
    methods: Mapping[str, Any],
) -> str:
    """The page of `compare`. All figures come in words; `state` is that of its gates, or empty without one."""
    told = " (simulated: no model was called)" if simulated else ""
    said = {"pass": "Every gate passed", "fail": "A gate failed", "undecided": "A gate is undecided"}.get(
        state, "Compared"
    )
    parts = [
        f'<header><h1>batchctl compare</h1><p class="head">{said}</p><p class="soft">{rows:,} rows{told}</p></header>'
    ]
    chart = _bars("Accuracy", [(name, value, words, "plain") for name, value, words in bars])
    parts.append(f"<section><h2>Models</h2>{chart}{_plain('On the same rows', *overview)}</section>")
    if paired[1]:
        parts.append(f"<section><h2>Differences</h2>{_plain('Row by row', *paired)}</section>")
    if gates:
        table = _plain("Gates", ("Gate", "Model", "State", "Seen"), gates, text=(0, 1, 2, 3))
        parts.append(f"<section><h2>Gates</h2>{table}</section>")
    for name, found in labels:
        head = ("Label", "Rows", "Recall", "95 %", "Precision", "95 %")
        parts.append(f"<section><h2>Labels of {escape(name)}</h2>{_plain('By label', head, found)}</section>")
    for name, cells in mixed:
        if cells:
            table = _plain("Gold and answer", ("Gold", "Answer", "Rows"), cells[:MOST_CHUNKS], text=(0, 1))
            parts.append(f"<section><h2>Confusions of {escape(name)}</h2>{table}</section>")
    how = f"{methods['shares']}; differences: {methods['difference']}; p: {methods['p']}"
    parts.append(f'<p class="soft">Intervals are 95 %: {escape(how)}.</p>')
    return _shell("batchctl compare", parts)


def _plain(caption: str, names: Sequence[str], rows: Iterable[Sequence[str]], *, text: Sequence[int] = (0,)) -> str:
    """A table of plain text."""
    return _table(caption, names, [[escape(cell) for cell in row] for row in rows], text=text)


def _shell(title: str, parts: Sequence[str]) -> str:
    """A whole page around its parts."""
    title = escape(title)
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head>\n<body><main>\n{body}\n</main></body></html>\n"
    )


def _head(facts: Mapping[str, Any], usd: Usd) -> str:
    per = facts["usd_per_completed"]
    cost = facts["cost"]
    done = facts["balance"]["completed"] + facts["balance"]["published"]
    simulated = " (simulated: no model was called and nothing was paid)" if facts["simulated"] else ""
    said = f"{usd(per)} per completed row" if done else "No row is completed yet"
    made = f"{escape(facts['provider'])} / {escape(facts['model'])}, prepared {escape(facts['created_at'])}{simulated}"
    total = f"{done:,} completed rows for {usd(cost['usd'])}; {usd(cost['usd_per_1000_completed'])} per 1,000."
    return (
        f'<header><h1>{escape(str(facts["run"]))}</h1><p class="soft">{made}</p><p class="head">{said}</p>'
        f"<p>{total}</p></header>"
    )


def _table(caption: str, names: Sequence[str], rows: Iterable[Sequence[Any]], *, text: Sequence[int] = (0,)) -> str:
    """A table whose first column heads its rows. Columns but those in `text` are numbers."""
    head = "".join(
        f'<th scope="col"{"" if place in text else " class=n"}>{escape(name)}</th>' for place, name in enumerate(names)
    )
    body = []
    for row in rows:
        first, *others = row
        cells = "".join(
            f"<td{' class=t' if place in text else ' class=n'}>{one}</td>" for place, one in enumerate(others, 1)
        )
        body.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
    return (
        f'<div class="wide" role="region" aria-label="{escape(caption)}" tabindex="0"><table><caption>{escape(caption)}'
        f"</caption><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _bars(title: str, rows: Sequence[tuple[str, float, str, str]]) -> str:
    """Horizontal bars: label, length, what is written beside it, colour."""
    most = max((length for _, length, _, _ in rows), default=0.0)
    if not most:
        return ""
    parts = []
    for place, (label, length, said, colour) in enumerate(rows):
        y = place * 26
        width = max(1.0, length / most * 330)
        parts.append(
            f'<text x="0" y="{y + 17}">{escape(label)}</text><rect class="{colour}" x="170" y="{y + 5}" '
            f'width="{width:.1f}" height="16" rx="2"/><text x="{178 + width:.1f}" y="{y + 17}">{escape(said)}</text>'
        )
    return (
        f'<svg role="img" aria-label="{escape(title)}" viewBox="0 0 640 {len(rows) * 26 + 4}"><title>{escape(title)}</title>'
        f"{''.join(parts)}</svg>"
    )


def _balance(balance: Mapping[str, int]) -> str:
    shown = [(state, word, balance[state]) for state, word in STATES.items() if balance[state]]
    rows = max(balance["rows"], 1)
    place, parts = 0.0, []
    for state, word, count in shown:
        width = count / rows * 640
        parts.append(
            f'<rect class="{_COLOURS.get(state, "rest")}" x="{place:.2f}" y="0" width="{max(width - 1, 0.5):.2f}" height="28">'
            f"<title>{escape(word)}: {count:,}</title></rect>"
        )
        place += width
    bar = f'<svg role="img" aria-label="Row balance" viewBox="0 0 640 28"><title>Row balance</title>{"".join(parts)}</svg>'
    table = _table(
        "Every row in exactly one state",
        ("State", "Rows", "Share"),
        [
            *((word, f"{count:,}", f"{count / rows:.1%}") for _, word, count in shown),
            ("all rows", f"{rows:,}", "100.0%"),
        ],
    )
    return f"<section><h2>Rows</h2>{bar}{table}</section>"


def _spend(spend: Sequence[Mapping[str, Any]], cost: Mapping[str, Any], usd: Usd) -> str:
    bars = [(one["for"], float(one["usd"] or 0), usd(one["usd"]), "plain") for one in spend if one["usd"]]
    rows = [(escape(one["for"]), usd(one["usd"])) for one in spend] + [("all", usd(cost["usd"]))]
    note = ""
    if cost["unmetered"]:
        note = (
            f"<p>{cost['unmetered']:,} requests may be billed and nobody gave their tokens; with them it is at most "
            f"{usd(cost['usd_at_most'])}.</p>"
        )
    source = escape(cost["prices_from"] or "no source: the price of this model is unknown")
    return (
        f"<section><h2>Spend</h2>{_bars('Spend by purpose', bars)}{_table('Spend by purpose', ('For', 'USD'), rows)}{note}"
        f'<p class="soft">Prices: {source}.</p></section>'
    )


def _forecast(forecast: Mapping[str, Any] | None, usd: Usd) -> str:
    if forecast is None:
        return ""
    words = {True: "inside the interval", False: "outside the interval", None: "not known yet"}
    rows = [
        ("forecast", usd(forecast["usd"])),
        ("low end", usd(forecast["usd_low"])),
        ("high end", usd(forecast["usd_high"])),
        ("first attempts did cost", usd(forecast["usd_fact"])),
        ("verdict", words[forecast["inside"]]),
    ]
    caption = f"{forecast['method']}, from {forecast['answers']:,} answers"
    return f"<section><h2>Forecast and fact</h2>{_table(caption, ('Figure', 'USD'), rows)}</section>"


def _failures(now: Mapping[str, int], attempts: Sequence[Mapping[str, Any]]) -> str:
    bars = [(kind, float(count), f"{count:,}", "bad") for kind, count in now.items()]
    kinds = list(dict.fromkeys(kind for one in attempts for kind in one["failures"]))
    rows = [
        (one["attempt"], f"{one['requests']:,}", *(f"{one['failures'].get(kind, 0):,}" for kind in kinds))
        for one in attempts
    ]
    table = _table("Failures by attempt and kind, as judged", ("Attempt", "Requests", *kinds), rows)
    counted = [(escape(kind), f"{count:,}") for kind, count in now.items()]
    left = _table("Rows that have failed or are in doubt now", ("Kind", "Rows"), counted)
    chart = _bars("Failed rows by kind", bars)
    body = f"{chart}{left}" if now else "<p>No row has failed.</p>"
    return f"<section><h2>Failures</h2>{body}{table if rows else ''}</section>"


def _turnaround(taken: Mapping[str, Any]) -> str:
    if not taken["batches"]:
        return ""
    slowest = sorted(taken["batches"], key=lambda one: -one["seconds"])[:20]
    bars = [
        (f"chunk {one['chunk']}", float(one["seconds"]) or 0.5, f"{one['seconds']:,} s", "plain") for one in slowest
    ]
    rows = [
        ("this run", f"{len(taken['batches']):,}", taken["p50_seconds"], taken["p90_seconds"]),
        ("earlier here", f"{taken['history_batches']:,}", *(
            "none" if taken[name] is None else taken[name] for name in ("history_p50_seconds", "history_p90_seconds")
        )),
    ]  # fmt: skip
    table = _table("Seconds from sent to ended", ("Batches of", "Batches", "p50", "p90"), rows)
    each = _table("Slowest batches", ("Chunk", "Requests", "Seconds"),
                  [(one["chunk"], f"{one['requests']:,}", f"{one['seconds']:,}") for one in slowest])  # fmt: skip
    return f"<section><h2>Turnaround</h2>{_bars('Slowest batches', bars)}{table}{each}</section>"


def _chunks(chunks: Sequence[Mapping[str, Any]], usd: Usd) -> str:
    if not chunks:
        return ""
    worst = sorted(chunks, key=lambda one: (-one["failed"], one["chunk"]))[:MOST_CHUNKS]
    rows = [
        (
            one["chunk"],
            one["attempt"],
            f"{one['requests']:,}",
            f"{one['failed']:,}",
            usd(one["usd"]),
            escape(", ".join(f"{count:,} {kind}" for kind, count in one["failures"].items())),
        )
        for one in worst
    ]
    caption = "Chunks, most failures first" + (
        f" ({len(worst):,} of {len(chunks):,})" if len(worst) < len(chunks) else ""
    )
    names = ("Chunk", "Attempt", "Requests", "Failed", "USD", "Kinds")
    return f"<section><h2>Chunks</h2>{_table(caption, names, rows, text=(0, 5))}</section>"


def _texts(rows: Sequence[Mapping[str, Any]] | None) -> str:
    if not rows:
        return ""
    listed = []
    for one in rows:
        source = "\n".join(f"{name}: {value}" for name, value in one.items() if not name.startswith("_"))
        listed.append((escape(str(one["_reason"])), escape(str(one["_detail"] or "")), escape(source)))
    table = _table("The first failed rows, with their text", ("Kind", "Detail", "Row"), listed, text=(0, 1, 2))
    return f"<section><h2>Failed rows</h2>{table}</section>"


def _provenance(facts: Mapping[str, Any]) -> str:
    usage = facts["usage"]
    rows = [
        ("job", escape(str(facts["job"]))),
        ("prompt version", escape(str(facts["prompt_version"] or "none"))),
        ("schema version", escape(str(facts["schema_version"] or "none"))),
        *((name.replace("_", " "), f"{count:,}") for name, count in usage.items()),
    ]
    return f"<section><h2>What it was made with</h2>{_table('Versions and tokens', ('Fact', 'Value'), rows)}</section>"
