"""One self-contained HTML page: tables, pictures, text, and numbers as people read them.

Everything is escaped here, so callers pass plain text. A page needs nothing from outside: no script, no
style sheet, no font, no picture, and its content security policy forbids any.
"""

import base64
import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

UNDEFINED = "-"
NARROW, WIDE = 4, 12  # columns


@dataclass(frozen=True)
class Grid:
    """A table of formatted cells.

    Parameters
    ----------
    name : str
        Its id on the page.
    columns : tuple of str
        Titles; the first is that of the row names.
    rows : tuple of tuple of str
        A name and a cell for every further column. A row of the name alone is a heading across.
    title, note : str
        Above and below the table.
    words : tuple of int
        Columns that hold words: set to the left, and wrapped.
    shades : mapping of (int, int) to float
        By row and column: from -1 (the loss color) over 0 (none) to 1 (the profit color).
    """

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    note: str = ""
    words: tuple[int, ...] = ()
    shades: Mapping[tuple[int, int], float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) not in (1, len(self.columns)):
                raise ValueError(
                    f"table {self.name}: row {row[0]!r} has {len(row)} cells; it must have "
                    f"{len(self.columns)}, or 1 for a heading"
                )


def printable(text: object) -> str:
    """Return one line of text without characters that cannot be shown or that turn the line around."""
    shown = "".join(letter if letter.isprintable() else " " for letter in str(text))
    return " ".join(shown.split())


def escaped(text: object) -> str:
    """Return text for the inside of an element or of a quoted attribute."""
    return html.escape(printable(text), quote=True)


def percent(value: float, digits: int = 1, signed: bool = True) -> str:
    """Return a fraction in percent: ``+1,234.5%``."""
    sign = "+" if signed else ""
    return f"{value:{sign}z,.{digits}%}" if math.isfinite(100 * value) else UNDEFINED


def decimal(value: float, digits: int = 2, signed: bool = False) -> str:
    """Return a number with so many decimals: ``1,234.50``."""
    sign = "+" if signed else ""
    return f"{value:{sign}z,.{digits}f}" if math.isfinite(value) else UNDEFINED


def whole(value: float) -> str:
    """Return a whole number: ``1,234``."""
    return decimal(value, 0)


def significant(value: float, digits: int = 6) -> str:
    """Return a number with so many digits that count, at most 12 decimals, and no power of ten."""
    if not math.isfinite(value):
        return UNDEFINED
    size = math.floor(math.log10(abs(value))) if value else 0
    text = f"{value:z,.{min(max(digits - 1 - size, 0), 12)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def money_style(capital: float, signed: bool = True) -> Callable[[float], str]:
    """Return how amounts of an account are written: down to about a millionth of its capital.

    ``+1,234.56`` for an account of 10,000; whole numbers from a million on.
    """
    digits = min(max(6 - math.floor(math.log10(capital)), 0), 12)
    return lambda amount: decimal(amount, digits, signed)


def table(grid: Grid) -> str:
    """Return a grid as HTML; tables of few short columns stand side by side where there is room."""
    words = grid.words
    size = "wide" if len(grid.columns) > WIDE else "" if words or len(grid.columns) > NARROW else "narrow"
    head = "".join(f'<th scope="col"{_kind(i, words)}>{escaped(c)}</th>' for i, c in enumerate(grid.columns))
    body = []
    for i, row in enumerate(grid.rows):
        if len(row) == 1 < len(grid.columns):
            body.append(
                f'<tr class="group"><th colspan="{len(grid.columns)}" scope="rowgroup">'
                f"{escaped(row[0])}</th></tr>"
            )
            continue
        cells = "".join(
            f"<td{_kind(j, words, cell, grid.shades.get((i, j), 0.0))}>{escaped(cell)}</td>"
            for j, cell in enumerate(row[1:], 1)
        )
        body.append(f'<tr><th scope="row"{_kind(0, words, row[0])}>{escaped(row[0])}</th>{cells}</tr>')
    title = f"<caption>{escaped(grid.title)}</caption>" if grid.title else ""
    note = f'<p class="note">{escaped(grid.note)}</p>' if grid.note else ""
    return (
        f'<div class="scroll {size}"><table id="{escaped(grid.name)}">{title}<thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table>{note if size == 'narrow' else ''}</div>"
        f"{'' if size == 'narrow' else note}"
    )


def picture(content: bytes, caption: str) -> str:
    """Return a PNG as HTML, with the picture inside."""
    data = base64.b64encode(content).decode("ascii")
    text = escaped(caption)
    image = f'<img alt="{text}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}<figcaption>{text}</figcaption></figure>"


def paragraph(text: str, kind: str = "") -> str:
    """Return a paragraph of a class of the style sheet: ``note``, ``sample``, ``warning``."""
    return f'<p class="{escaped(kind)}">{escaped(text)}</p>' if kind else f"<p>{escaped(text)}</p>"


def bullets(lines: Sequence[str], name: str) -> str:
    """Return sentences as a list with an id."""
    return f'<ul id="{escaped(name)}">{"".join(f"<li>{escaped(line)}</li>" for line in lines)}</ul>'


def chapter(title: str, *parts: str) -> str:
    """Return a chapter of what the functions above return; nothing for no parts."""
    inside = "".join(part for part in parts if part)
    return f"<section><h2>{escaped(title)}</h2>{inside}</section>" if inside else ""


def document(title: str, *parts: str) -> bytes:
    """Return the whole page, UTF-8."""
    text = escaped(title)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer"><meta name="color-scheme" content="light dark">'
        f"<title>{text}</title><style>{_STYLE}</style></head>\n<body><h1>{text}</h1>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body></html>\n"
    ).encode("utf-8", "replace")


def _kind(column: int, words: tuple[int, ...], cell: str = "", shade: float = 0.0) -> str:
    kinds = [
        "words" if column in words else "",
        "loss" if cell.startswith("-") and cell != UNDEFINED and column not in words and not shade else "",
    ]
    name = " ".join(kind for kind in kinds if kind)
    mark = f' class="{name}"' if name else ""
    if shade and math.isfinite(shade):
        strength = 0.55 * min(abs(shade), 1.0)
        mark += f' style="background:rgba({"11,122,59" if shade > 0 else "179,38,30"},{strength:.2f})"'
    return mark


# Pictures are drawn once, dark on white. On a dark screen they are inverted and their hues turned back.
_STYLE = """
:root{color-scheme:light dark;--ink:#1c1e21;--paper:#fff;--soft:#5d646d;--line:#d9dde2;
--loss:#b3261e;--mark:#1b6ca8;--warn:#fff3d6}
@media screen and (prefers-color-scheme:dark){:root{--ink:#e4e6e9;--paper:#121212;--soft:#a0a7b0;
--line:#34383e;--loss:#ff8a80;--mark:#74b8ea;--warn:#3d3212}
img{filter:invert(.93) hue-rotate(180deg)}}
*{box-sizing:border-box}
body{font:15px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;
max-width:68rem;margin:0 auto;padding:1.5rem 1rem 3rem;color:var(--ink);background:var(--paper);
overflow-wrap:anywhere}
h1{font-size:1.7rem;line-height:1.2;margin:0 0 .6rem}
h2{font-size:1.2rem;margin:2.2rem 0 .6rem;padding-bottom:.2rem;border-bottom:2px solid var(--line)}
p,ul{margin:.5rem 0}ul{padding-left:1.2rem}
.sample{font-size:1.5rem;font-weight:700;letter-spacing:.04em;text-transform:uppercase;color:var(--mark);
margin:.2rem 0}
.warning{background:var(--warn);padding:.5rem .8rem;border-radius:.3rem}
.note,figcaption,caption{color:var(--soft);font-size:.85rem}
.scroll{overflow-x:auto;margin:.8rem 0 .3rem}
table{border-collapse:collapse;width:100%;font-size:.86rem;font-variant-numeric:tabular-nums;
overflow-wrap:normal}
caption{text-align:left;font-weight:600;padding-bottom:.25rem}
th,td{padding:.22rem .5rem;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line)}
thead th{color:var(--soft);font-weight:600;vertical-align:bottom;white-space:normal}
th:first-child{text-align:left;padding-left:0}
tbody th{font-weight:500}
tr.group th{padding-top:.7rem;color:var(--soft);font-weight:600}
th.words,td.words{text-align:left;white-space:normal;overflow-wrap:break-word;max-width:34rem}
.wide table{font-size:.74rem}.wide th,.wide td{padding:.2rem .28rem}
.wide .words{padding-left:.7rem}
.narrow{display:inline-block;vertical-align:top;min-width:18rem;max-width:100%;margin-right:2.5rem}
td.words{color:var(--soft);font-size:.93em}
.loss{color:var(--loss)}
#headline{table-layout:fixed}
#headline td,#headline th{text-align:left;border:0;padding-left:0}
#headline td,#headline tbody th{font-size:1.45rem;font-weight:650;padding-top:0}
figure{margin:1rem 0}
img{display:block;width:100%;height:auto}
@page{margin:14mm}
@media print{body{max-width:none;padding:0;font-size:9.5pt}h2{break-after:avoid}
figure,tr,.scroll,.warning{break-inside:avoid}thead{display:table-header-group}.scroll{overflow:visible}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
""".replace("\n", "")
