"""A Decision as one HTML file: no script, no font, no picture and no address from elsewhere, so that it can be mailed, printed and archived.

Everything that comes from outside is escaped, and the page's own content security policy forbids whatever an escape might miss.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from html import escape
from typing import Any

from policies.decision import explain_sizes, in_unit, part_in_unit

_OUTCOMES = {
    "allow": ("Allowed", "pass", "Every rule of the policy was shown to hold afterwards."),
    "require_signers": ("Needs more signers", "warn", "No rule forbids it; a quorum must sign."),
    "deny": ("Denied", "deny", "Nobody signs this operation."),
}
_VERDICTS = {"pass": "passes", "warn": "warning", "require_signers": "needs signers", "deny": "denies"}
_CONTRIBUTIONS = 12
"""Contributions that are listed for one limit, the largest first; the rest is summed up in a line."""

_STYLE = """
:root { --ink: #16202e; --soft: #5b6675; --line: #d9dee5; --paper: #fff; --band: #f5f7f9;
        --pass: #1a7f4b; --warn: #9a5b00; --deny: #b3261e; }
* { box-sizing: border-box; }
html { background: var(--band); }
body { margin: 2rem auto; max-width: 66rem; padding: 2.5rem 3rem; background: var(--paper); color: var(--ink);
       font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif;
       border: 1px solid var(--line); border-radius: 6px; }
h1 { margin: 0; font-size: 1.9rem; letter-spacing: -.01em; }
h2 { margin: 2.4rem 0 .6rem; font-size: 1.05rem; letter-spacing: .01em; }
p { margin: .3rem 0; }
header { display: flex; gap: 1.5rem; justify-content: space-between; align-items: flex-start;
         border-left: 6px solid var(--tone); padding-left: 1.2rem; }
header .name { color: var(--soft); text-align: right; white-space: nowrap; }
header p { color: var(--soft); }
h1 { color: var(--tone); }
.pass { --tone: var(--pass); } .warn, .require_signers { --tone: var(--warn); } .deny { --tone: var(--deny); }
.against { margin: 1.4rem 0 0; padding: .8rem 1.2rem; background: var(--band); border-radius: 4px; }
.against ul { margin: .2rem 0; padding-left: 1.2rem; }
.size { font-size: 1.15rem; }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; font-size: .78rem; color: var(--soft);
     border-bottom: 1px solid var(--line); padding: .35rem .6rem .35rem 0; }
td { border-bottom: 1px solid var(--line); padding: .5rem .6rem .5rem 0; vertical-align: top; }
td.n, th.n { text-align: right; white-space: nowrap; }
.limits td:nth-child(2) { min-width: 13rem; }
tr.more td { border-bottom: 1px solid var(--line); padding-top: 0; color: var(--soft); font-size: .85rem; }
tr.first td { border-bottom: 0; }
.verdict { display: inline-block; min-width: 6.4rem; color: var(--tone); font-weight: 600; }
.scope { display: block; color: var(--soft); font-size: .85rem; }
.bar { position: relative; width: 100%; height: 5px; margin-top: .35rem; background: var(--line); border-radius: 3px; overflow: hidden; }
.bar i { display: block; height: 100%; background: var(--tone); }
.parts { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: 0 1.6rem; }
.parts span { display: flex; justify-content: space-between; gap: 1rem; font-variant-numeric: tabular-nums; }
code { font: .82rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: 9rem 1fr; gap: .15rem 1rem; margin: 0; font-size: .9rem; }
dt { color: var(--soft); } dd { margin: 0; }
footer { margin-top: 2.6rem; padding-top: .8rem; border-top: 1px solid var(--line); color: var(--soft); font-size: .82rem; }
@media print {
  html, body { background: #fff; } body { margin: 0; padding: 0; max-width: none; border: 0; font-size: 10.5pt; }
  tr, .against, header { break-inside: avoid; } h2 { break-after: avoid; }
  .bar, .against { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  @page { margin: 16mm; }
}
@media (max-width: 46rem) { body { margin: 0; padding: 1.2rem; border: 0; } header { display: block; } header .name { text-align: left; } }
"""


def explain_html(decision: Mapping[str, Any], id_: str = "") -> str:
    """The page of a Decision's JSON form. `id_` is the decision's id (0x hex), shown when it is known. The same input gives the same page.

    Raises KeyError, TypeError or ArithmeticError for what is no Decision.
    """
    title, tone, meaning = _OUTCOMES[decision["outcome"]]
    name = escape(decision["policy_name"])
    at = datetime.fromtimestamp(int(decision["decided_at_s"]), UTC)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{title} by {name}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f'<header class="{tone}"><div><h1>{title}</h1><p>{meaning}</p></div>'
        f'<p class="name"><strong>{name}</strong><br><time datetime="{at.isoformat()}">{at:%d %B %Y, %H:%M:%S} UTC</time></p></header>\n'
        + _against(decision)
        + _sizes(decision)
        + _limits(decision)
        + _calls(decision["calls"])
        + _listed("Warnings", decision["warnings"])
        + _provenance(decision, id_)
        + "</body>\n</html>\n"
    )


def _against(decision: Mapping[str, Any]) -> str:
    """What decided: objections and the limits that are in the way."""
    reasons = [escape(text) for text in decision["objections"]]
    reasons += [
        f"<strong>{escape(row['id'])}</strong>: {_text(row['after'], row['unit'])}, "
        f"{row['comparator']} {_text(row['bound'], row['unit'])}"
        for row in decision["limits"]
        if row["verdict"] in ("deny", "require_signers") and (row["after"] is not None or not decision["objections"])
    ]
    if not reasons:
        return ""
    return (
        f'<div class="against"><strong>Against it</strong><ul>{"".join(f"<li>{r}</li>" for r in reasons)}</ul></div>\n'
    )


def _sizes(decision: Mapping[str, Any]) -> str:
    lines = explain_sizes(decision)
    if not lines:
        return ""
    first, *others = (escape(line.strip()) for line in lines)
    rest = "".join(f"<p>{line[:1].upper()}{line[1:]}.</p>" for line in others if not line.startswith("by "))
    return f'<h2>What would have passed</h2>\n<p class="size">{first[:1].upper()}{first[1:]}.</p>\n{rest}'


def _limits(decision: Mapping[str, Any]) -> str:
    rows = decision["limits"]
    if not rows:
        return ""
    body = "".join(_limit(row, decision) for row in sorted(rows, key=lambda r: _ORDER.index(r["verdict"])))
    return (
        '<h2>Limits</h2>\n<table class="limits"><thead><tr><th>Verdict</th><th>Limit</th><th class="n">Before</th>'
        '<th class="n">After</th><th class="n">Bound</th><th class="n">Headroom</th></tr></thead>\n'
        f"<tbody>{body}</tbody></table>\n"
    )


_ORDER = ("deny", "require_signers", "warn", "pass")


def _limit(row: Mapping[str, Any], decision: Mapping[str, Any]) -> str:
    unit = row["unit"]
    change = " change" if row.get("of_change") else ""
    quorum = f" by {escape(row['approval'])}" if row.get("approval") and row["verdict"] == "require_signers" else ""
    used = row["utilisation"]
    bar = ""
    if used is not None:
        share = min(max(Decimal(used), Decimal(0)), Decimal(1)) * 100
        bar = f'<div class="bar" title="{Decimal(used):.1%} of the bound"><i style="width:{share:.1f}%"></i></div>'
    cells = [
        f'<td><span class="verdict">{_VERDICTS[row["verdict"]]}{quorum}</span></td>',
        f'<td><strong>{escape(row["id"])}</strong> <span class="scope">{escape(row["metric"])}, {escape(row["scope"])}</span>{bar}</td>',
        f'<td class="n">{"" if row["before"] is None else _text(row["before"], unit)}</td>',
        f'<td class="n">{_text(row["after"], unit)}</td>',
        f'<td class="n">{row["comparator"]}{change} {_text(row["bound"], unit)}</td>',
        f'<td class="n">{"" if row["headroom"] is None else _text(row["headroom"], unit)}</td>',
    ]
    more = _more(row, decision.get("sizes"), len(cells))
    return f'<tr class="{row["verdict"]}{" first" if more else ""}">{"".join(cells)}</tr>{more}\n'


def _more(row: Mapping[str, Any], sizes: Mapping[str, Any] | None, columns: int) -> str:
    """Why, the size that would pass this limit, and what the value is made of."""
    parts: Sequence[tuple[str, str]] = row["contributions"]
    shown = sorted(parts, key=lambda part: -abs(Decimal(part[1])) if Decimal(part[1]).is_finite() else Decimal(0))
    lines = [
        f"<span><span>{escape(label)}</span><span>{escape(part_in_unit(Decimal(value), row))}</span></span>"
        for label, value in shown[:_CONTRIBUTIONS]
    ]
    if len(shown) > _CONTRIBUTIONS:
        lines.append(f"<span><span>and {len(shown) - _CONTRIBUTIONS} smaller</span><span></span></span>")
    why = [row["reason"]] if row["reason"] else []
    if sizes is not None:
        for entry in sizes["by_limit"]:
            if entry["id"] == row["id"] and entry["size"] != sizes["requested"]:
                most = None if entry["size"] is None else f"{Decimal(entry['size']):,f} {sizes['unit']}"
                why.append(
                    "no size tried would pass this limit" if most is None else f"at most {most} would pass this limit"
                )
    reason = f"<p>{escape('; '.join(why))}</p>" if why else ""
    if not lines and not reason:
        return ""
    made = f'<div class="parts">{"".join(lines)}</div>' if lines else ""
    return f'<tr class="more"><td></td><td colspan="{columns - 1}">{reason}{made}</td></tr>'


def _calls(calls: Iterable[Mapping[str, Any]]) -> str:
    rows = "".join(
        f'<tr class="{"pass" if row["rule"] else "deny"}"><td><code>{escape(row["title"])}</code></td><td>{escape(row["effect"])}</td>'
        f'<td><span class="verdict">{escape(row["rule"]) or "allowed by nothing"}</span></td></tr>'
        for row in calls
    )
    if not rows:
        return ""
    return f"<h2>Calls</h2>\n<table><thead><tr><th>Call</th><th>Effect</th><th>Allowed by</th></tr></thead><tbody>{rows}</tbody></table>\n"


def _listed(title: str, texts: Sequence[str]) -> str:
    if not texts:
        return ""
    return f"<h2>{title}</h2>\n<ul>{''.join(f'<li>{escape(text)}</li>' for text in texts)}</ul>\n"


def _provenance(decision: Mapping[str, Any], id_: str) -> str:
    facts = [
        ("decision", id_),
        ("policy id", decision["policy_id"]),
        ("intent", decision["intent_hash"]),
        ("facts", decision["facts_hash"]),
        ("models", ", ".join(f"{m['name']} {m['version']} ({m['backend']})" for m in decision.get("models", ()))),
    ]
    rows = "".join(f"<dt>{name}</dt><dd><code>{escape(value)}</code></dd>" for name, value in facts if value)
    return (
        f"<h2>What it rests on</h2>\n<dl>{rows}</dl>\n"
        "<footer>The same facts and policy give the same decision, byte for byte: <code>seawall policy replay</code>. "
        "Amounts are exact; quotients are rounded towards more risk.</footer>\n"
    )


def _text(value: str | None, unit: str) -> str:
    return escape(in_unit(None if value is None else Decimal(value), unit))
