"""The report as one page of HTML: inline SVG, no script, nothing loaded from anywhere, every value also in a table.

Everything that is not a literal here passes `escape`. The page is for a browser, a print-out and a screen reader: light and
dark, narrow and wide, headings in order, each chart named and followed by its table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any

MOST_CHUNKS = 200
BAR = 40  # pixels from one bar to the next
VERDICTS = {True: "inside the interval", False: "outside the interval", None: "not known yet"}
Usd = Callable[[str | None], str]
Span = Callable[[int], str]
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
            "provider_error": "worse", "rejected": "soft", "held": "warn"}  # fmt: skip
_STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#57606a;--line:#d0d7de;--ground:#fff;--card:#f6f8fa;--good:#1a7f37;
--warn:#bf8700;--bad:#cf222e;--worse:#8c2332;--plain:#0969da;--note:#fff8c5}
@media (prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9198a1;--line:#3d444d;--ground:#0d1117;--card:#151b23;
--good:#3fb950;--warn:#d29922;--bad:#f85149;--worse:#b3434f;--plain:#4493f8;--note:#322a10}}
*{box-sizing:border-box}body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:66rem;margin:0 auto;padding:2rem 1.25rem 4rem}h1{font-size:1.1rem;margin:0;overflow-wrap:anywhere}
h2{font-size:1.1rem;margin:0 0 .7rem;border-bottom:1px solid var(--line);padding-bottom:.3rem}
.soft{color:var(--soft)}.head{font-size:2.3rem;font-weight:650;line-height:1.2;margin:.8rem 0 0}header p{margin:.2rem 0}
.note{background:var(--note);border-radius:6px;padding:.4rem .7rem;margin:.8rem 0 0}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.8rem,1fr));gap:.75rem;margin:1.5rem 0 0}
.cards div{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.7rem .9rem}
.cards dt{color:var(--soft);font-size:.9rem}.cards dd{margin:0;font-size:1.35rem;font-weight:600}
.cards small{display:block;font-size:.875rem;font-weight:400;color:var(--soft)}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));gap:0 2.5rem}
section{margin-top:2.2rem;min-width:0}.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%;margin:.7rem 0 0;font-variant-numeric:tabular-nums;font-size:.95rem}
caption{text-align:left;color:var(--soft);padding:.2rem 0;font-size:.9rem}
th,td{text-align:left;padding:.3rem 1rem .3rem 0;border-bottom:1px solid var(--line);vertical-align:top}
th:last-child,td:last-child{padding-right:.2rem}th{font-weight:600;white-space:nowrap}tbody th{font-weight:500}
td.n,th.n{text-align:right;white-space:nowrap}td.k{white-space:nowrap}.n+td:not(.n),.n+th:not(.n){padding-left:.8rem}
td.t{white-space:pre-wrap;overflow-wrap:anywhere;min-width:14rem}tr.all>*{font-weight:650}
svg{display:block;width:100%;margin:.4rem 0;overflow:visible}svg.key{display:inline-block;width:11px;margin:0 .5rem 0 0}
svg text{fill:var(--ink);font:15px system-ui,sans-serif}svg text.say{fill:var(--soft);text-anchor:end}
.good{fill:var(--good)}.warn{fill:var(--warn)}.bad{fill:var(--bad)}.worse{fill:var(--worse)}.plain{fill:var(--plain)}
.rest{fill:var(--line)}rect.soft{fill:var(--soft)}.ink{fill:var(--ink)}
@media (max-width:40rem){th,td{padding-right:.7rem}table{font-size:.9rem}}
@page{margin:14mm}
@media print{:root{color-scheme:light;print-color-adjust:exact;-webkit-print-color-adjust:exact}
html{font-size:11px}body{font-size:1rem}
main{max-width:none;padding:0}.wide{overflow:visible}.grid{grid-template-columns:1fr 1fr;gap:0 2rem}.head{font-size:1.8rem}
.cards{grid-template-columns:repeat(auto-fit,minmax(7.5rem,1fr))}svg text{font-size:11px}
th,td{padding-right:.7rem}section{margin-top:1.4rem}h2{break-after:avoid}
tr,svg,.cards div{break-inside:avoid}td.k{white-space:normal}}
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(facts: Mapping[str, Any], usd: Usd, span: Span) -> str:
    """The whole page of `report --json`'s facts; `usd` words one of its decimal strings, or null, and `span` seconds."""
    grid = [
        _balance(facts["balance"]),
        _spend(facts["spend"], facts["cost"], usd),
        _forecast(facts["forecast"], usd),
        _turnaround(facts["turnaround"], span),
    ]
    parts = [
        _head(facts, usd),
        _cards(facts, usd, span),
        f'<div class="grid">{"".join(grid)}</div>',
        _failures(facts["failures"], facts["attempts"]),
        _rules(facts["broken_rules"]),
        _chunks(facts["chunks"], facts["turnaround"]["batches"], usd, span),
        _texts(facts.get("failed_rows")),
        _published(facts["publications"]),
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


def _done(balance: Mapping[str, int]) -> int:
    return balance["completed"] + balance["published"]


def _head(facts: Mapping[str, Any], usd: Usd) -> str:
    per = facts["usd_per_completed"]
    said = f"{usd(per)} per completed row" if _done(facts["balance"]) else "No row is completed yet"
    made = f"{escape(facts['provider'])} / {escape(facts['model'])}, prepared {escape(_minute(facts['created_at']))}"
    simulated = ""
    if facts["simulated"]:
        simulated = '<p class="note">Simulated: no model was called and nothing was paid.</p>'
    return (
        f'<header><h1>{escape(str(facts["run"]))}</h1><p class="soft">{made}</p><p class="head">{said}</p>'
        f"{simulated}</header>"
    )


def _minute(instant: str) -> str:
    """`2026-11-21T08:15:02Z` as `2026-11-21 08:15 UTC`."""
    day, _, time = instant.partition("T")
    return f"{day} {time[:5]} UTC"


def _cards(facts: Mapping[str, Any], usd: Usd, span: Span) -> str:
    """The figures a reader looks for first; each stands in a table further down as well."""
    balance, cost, taken, expected = facts["balance"], facts["cost"], facts["turnaround"], facts["forecast"]
    rows, done = max(balance["rows"], 1), _done(balance)
    cards = [
        ("Completed rows", f"{done:,}", f"{done / rows:.1%} of {balance['rows']:,}"),
        ("Cost", usd(cost["usd"]), f"{usd(cost['usd_per_1000_completed'])} per 1,000 completed" if done else ""),
    ]
    failed = balance["invalid_output"] + balance["provider_error"]
    doubt = balance["review_required"] + balance["held"]
    said = f"{failed:,} failed, {doubt:,} wait for a person" if failed + doubt else "nothing to do"
    cards.append(("Need attention", f"{failed + doubt:,}", said))
    if open_ := balance["queued"] + balance["submitted"]:
        cards.append(("Not answered yet", f"{open_:,}", f"{open_ / rows:.1%} of all rows"))
    if taken["p50_seconds"] is not None:
        cards.append(
            ("Half of the batches within", span(taken["p50_seconds"]), f"nine in ten: {span(taken['p90_seconds'])}")
        )
    if expected is not None:
        cards.append(("Forecast", usd(expected["usd"]), VERDICTS[expected["inside"]]))
    listed = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(more)}</small></dd></div>"
        for name, value, more in cards
    )
    return f'<dl class="cards">{listed}</dl>'


def _table(
    caption: str,
    names: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    text: Sequence[int] = (0,),
    short: Sequence[int] = (),
    total: bool = False,
) -> str:
    """A table whose first column heads its rows. Columns not in `text` or `short` are numbers; `total`: the last row."""
    words = (*text, *short)
    head = "".join(
        f'<th scope="col"{"" if place in words else " class=n"}>{escape(name)}</th>' for place, name in enumerate(names)
    )
    body = []
    for row in rows:
        first, *others = row
        cells = "".join(
            f"<td class={'k' if place in short else 't' if place in text else 'n'}>{one}</td>"
            for place, one in enumerate(others, 1)
        )
        body.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
    if total and body:
        body[-1] = body[-1].replace("<tr>", '<tr class="all">', 1)
    return (
        f'<div class="wide" role="region" aria-label="{escape(caption)}" tabindex="0"><table><caption>{escape(caption)}'
        f"</caption><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _bars(title: str, rows: Sequence[tuple[str, float, str, str]]) -> str:
    """Horizontal bars: label, length, what is written beside it, colour. Widths are shares of the page, letters are not."""
    most = max((length for _, length, _, _ in rows), default=0.0)
    if not most:
        return ""
    parts = []
    for place, (label, length, said, colour) in enumerate(rows):
        y = place * BAR
        width = max(0.4, length / most * 100)
        parts.append(
            f'<text x="0" y="{y + 15}">{escape(label)}</text><text class="say" x="100%" y="{y + 15}">{escape(said)}</text>'
            f'<rect class="rest" x="0" y="{y + 21}" width="100%" height="8" rx="4" opacity=".35"/>'
            f'<rect class="{colour}" x="0" y="{y + 21}" width="{width:.2f}%" height="8" rx="4"/>'
        )
    return _drawing(title, len(rows) * BAR - 8, "".join(parts))


def _drawing(title: str, height: int, inside: str) -> str:
    title = escape(title)
    return f'<svg role="img" aria-label="{title}" height="{height}"><title>{title}</title>{inside}</svg>'


def _key(colour: str) -> str:
    """A small field in the colour that a row of a table has in the drawing above it."""
    return (
        f'<svg class="key" height="11" aria-hidden="true"><rect class="{colour}" width="11" height="11" rx="2"/></svg>'
    )


def _balance(balance: Mapping[str, int]) -> str:
    shown = [(word, balance[state], _COLOURS.get(state, "rest")) for state, word in STATES.items() if balance[state]]
    rows = max(balance["rows"], 1)
    place, parts = 0.0, []
    for word, count, colour in shown:
        width = count / rows * 100
        parts.append(
            f'<rect class="{colour}" x="{place:.3f}%" y="0" width="{max(width - 0.15, 0.1):.3f}%" height="28">'
            f"<title>{escape(word)}: {count:,}</title></rect>"
        )
        place += width
    table = _table(
        "Every row in exactly one state",
        ("State", "Rows", "Share"),
        [
            *((_key(colour) + escape(word), f"{count:,}", f"{count / rows:.1%}") for word, count, colour in shown),
            ("all rows", f"{balance['rows']:,}", "100.0%" if balance["rows"] else ""),
        ],
        total=True,
    )
    return f"<section><h2>Rows</h2>{_drawing('Rows by state', 28, ''.join(parts))}{table}</section>"


def _spend(spend: Sequence[Mapping[str, Any]], cost: Mapping[str, Any], usd: Usd) -> str:
    bars = [
        (one["for"], float(one["usd"]), usd(one["usd"]), "plain") for one in spend if one["usd"] and float(one["usd"])
    ]
    rows = [(escape(one["for"]), usd(one["usd"])) for one in spend] + [("all", usd(cost["usd"]))]
    note = ""
    if cost["unmetered"]:
        note = (
            f"<p>{cost['unmetered']:,} requests may be billed and nobody gave their tokens; with them it is at most "
            f"{usd(cost['usd_at_most'])}.</p>"
        )
    source = escape(cost["prices_from"] or "no source: the price of this model is unknown")
    table = _table("Spend by purpose", ("For", "USD"), rows, total=True)
    return (
        f"<section><h2>Spend</h2>{_bars('Spend by purpose', bars)}{table}{note}"
        f'<p class="soft">Prices: {source}.</p></section>'
    )


def _forecast(forecast: Mapping[str, Any] | None, usd: Usd) -> str:
    if forecast is None:
        return ""
    rows = [("forecast", usd(forecast["usd"]))]
    drawn = ""
    if forecast["usd_low"] is not None:
        rows += [("low end", usd(forecast["usd_low"])), ("high end", usd(forecast["usd_high"]))]
        drawn = _interval(forecast, usd)
    rows.append(
        ("first attempts did cost", "not known yet" if forecast["usd_fact"] is None else usd(forecast["usd_fact"]))
    )
    caption = f"{forecast['method']}, from {forecast['answers']:,} answers"
    said = f"<p>What was paid is {VERDICTS[forecast['inside']]}.</p>" if forecast["inside"] is not None else ""
    return f"<section><h2>Forecast and fact</h2>{drawn}{said}{_table(caption, ('Figure', 'USD'), rows)}</section>"


def _interval(forecast: Mapping[str, Any], usd: Usd) -> str:
    """The interval as a bar, its middle as a gap in it, and what was paid as an upright line."""
    low, mid, high = (float(forecast[name]) for name in ("usd_low", "usd", "usd_high"))
    fact = None if forecast["usd_fact"] is None else float(forecast["usd_fact"])
    most = max(high, fact or 0.0) * 1.08 or 1.0
    share = [f"{one / most * 100:.2f}%" for one in (low, high - low, mid, fact or 0.0)]
    said = f"{usd(forecast['usd_low'])} to {usd(forecast['usd_high'])}"
    paid = "" if fact is None else f"paid: {usd(forecast['usd_fact'])}"
    inside = (
        f'<text x="0" y="15">{escape(said)}</text><text class="say" x="100%" y="15">{escape(paid)}</text>'
        '<rect class="rest" x="0" y="28" width="100%" height="8" rx="4" opacity=".35"/>'
        f'<rect class="plain" x="{share[0]}" y="24" width="{share[1]}" height="16" rx="3" opacity=".55"/>'
        f'<rect class="plain" x="{share[2]}" y="24" width="3" height="16"/>'
    )
    inside += "" if fact is None else f'<rect class="ink" x="{share[3]}" y="20" width="3" height="24"/>'
    return _drawing(f"Forecast {said}; {paid or 'not paid yet'}", 46, inside)


def _failures(now: Mapping[str, int], attempts: Sequence[Mapping[str, Any]]) -> str:
    bars = [(kind, float(count), f"{count:,}", "bad") for kind, count in now.items()]
    kinds = list(dict.fromkeys([*now, *(kind for one in attempts for kind in one["failures"])]))
    rows = [
        (f"attempt {one['attempt']}", f"{one['requests']:,}", *(f"{one['failures'].get(kind, 0):,}" for kind in kinds))
        for one in attempts
    ]
    rows.append(("left now", "", *(f"{now.get(kind, 0):,}" for kind in kinds)))
    table = _table("By attempt and kind, as judged", ("Of", "Requests", *kinds), rows, total=True)
    body = _bars("Rows that have failed or are in doubt now, by kind", bars) or "<p>No row has failed.</p>"
    return f"<section><h2>Failures</h2>{body}{table if kinds else ''}</section>"


def _rules(broken: Sequence[Mapping[str, Any]]) -> str:
    if not broken:
        return ""
    rows = [(escape(one["name"]), f"{one['share']:.1%}", f"{one['max_share'] * 100:g}%") for one in broken]
    table = _table("Shares over the whole run that are not allowed", ("Rule", "Share", "At most"), rows)
    return f"<section><h2>Broken rules</h2>{table}</section>"


def _turnaround(taken: Mapping[str, Any], span: Span) -> str:
    if not taken["batches"]:
        return ""
    mine = (taken["p50_seconds"], taken["p90_seconds"], max(one["seconds"] for one in taken["batches"]))
    before = tuple(taken[name] for name in ("history_p50_seconds", "history_p90_seconds"))
    bars = [
        ("this run, half within", mine[0], "plain"),
        ("this run, nine in ten within", mine[1], "plain"),
        ("earlier here, half within", before[0], "rest"),
        ("earlier here, nine in ten within", before[1], "rest"),
    ]
    drawn = _bars(
        "From sent to ended",
        [(label, float(length) or 0.5, span(length), colour) for label, length, colour in bars if length is not None],
    )
    words = ["" if one is None else span(one) for one in (*mine, *before)]
    rows = [("this run", f"{len(taken['batches']):,}", *words[:3])]
    if taken["history_batches"]:
        rows.append(("earlier here", f"{taken['history_batches']:,}", *words[3:], ""))
    table = _table("From sent to ended", ("Of", "Batches", "p50", "p90", "Slowest"), rows)
    return f"<section><h2>Turnaround</h2>{drawn}{table}</section>"


def _chunks(chunks: Sequence[Mapping[str, Any]], batches: Sequence[Mapping[str, Any]], usd: Usd, span: Span) -> str:
    if not chunks:
        return ""
    took = {one["chunk"]: span(one["seconds"]) for one in batches}
    worst = sorted(chunks, key=lambda one: (-one["failed"], one["chunk"]))[:MOST_CHUNKS]
    rows = [
        (
            one["chunk"],
            one["attempt"],
            f"{one['requests']:,}",
            f"{one['failed']:,}",
            usd(one["usd"]),
            took.get(one["chunk"], ""),
            escape(", ".join(f"{count:,} {kind}" for kind, count in one["failures"].items())),
        )
        for one in worst
    ]
    caption = "Most failures first" + (f" ({len(worst):,} of {len(chunks):,})" if len(worst) < len(chunks) else "")
    names = ("Chunk", "Attempt", "Requests", "Failed", "USD", "Took", "Kinds")
    return f"<section><h2>Chunks</h2>{_table(caption, names, rows, short=(6,))}</section>"


def _published(publications: Sequence[Mapping[str, Any]]) -> str:
    if not publications:
        return ""
    rows = [
        (escape(one["to"]), "begun" if one["rows"] is None else f"{one['rows']:,}", escape(one["at"]))
        for one in publications
    ]
    return f"<section><h2>Published</h2>{_table('The last time for each target', ('To', 'Rows', 'At'), rows)}</section>"


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
        *((name.replace("_", " "), f"{count:,}") for name, count in usage.items() if count),
    ]
    return f"<section><h2>What it was made with</h2>{_table('Versions and tokens', ('Fact', 'Value'), rows)}</section>"
