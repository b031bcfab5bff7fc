"""``validation.html``: one page that needs nothing else, made from ``report.json`` and pictures."""

from collections.abc import Mapping, Sequence

from ensemble.chapters import Lines, Part, Picture, Sentence, chapters, opening, sources, title
from ensemble.report_grids import Report
from experiments.page import Grid, bullets, chapter, document, paragraph, picture, table


def validation_page(report: Report, pictures: Mapping[str, bytes], files: Mapping[str, str]) -> bytes:
    """Return the page, UTF-8.

    Parameters
    ----------
    report : mapping
        What ``report.json`` holds.
    pictures : mapping of str to bytes
        PNG by name, see :data:`ensemble.chapters.CAPTIONS`; one that is missing is left out.
    files : mapping of str to str
        SHA-256 of the files that the numbers come from, by name.
    """
    return document(
        title(report),
        paragraph("pass" if report["passed"] else "fail", "sample"),
        *_html(opening(report), pictures),
        *(chapter(head, *_html(parts, pictures)) for head, parts in chapters(report)),
        chapter(*_last(report, pictures, files)),
    )


def _last(report: Report, pictures: Mapping[str, bytes], files: Mapping[str, str]) -> tuple[str, ...]:
    head, parts = sources(report, files)
    return head, *_html(parts, pictures)


def _html(parts: Sequence[Part], pictures: Mapping[str, bytes]) -> list[str]:
    return [_one(part, pictures) for part in parts if part is not None]


def _one(part: Part, pictures: Mapping[str, bytes]) -> str:
    if isinstance(part, Grid):
        return table(part) if part.rows else ""
    if isinstance(part, Picture):
        return picture(pictures[part.name], part.caption) if part.name in pictures else ""
    if isinstance(part, Lines):
        return bullets(part.lines, part.name)
    assert isinstance(part, Sentence)
    return paragraph(part.text, part.kind) if part.text else ""
