from __future__ import annotations

from report.markdown import document, pipe
from report.section import Report, Section, Table

NAME = "</script><img src=x>|a\n## H"


def test_names_cannot_break_a_table_or_a_page() -> None:
    table = Table(header=("Name", "ms"), rows=((NAME, "1.0"),), numeric=frozenset({"ms"}))
    header, rule, row = pipe(table)
    assert (header, rule) == ("| Name | ms |", "| --- | ---: |")
    assert row == r"| \</script>\<img src=x>\|a ## H | 1.0 |"
    report = Report(
        name="x",
        title=NAME,
        subtitle=NAME,
        summary=(NAME,),
        sections=(Section(title=NAME, sentences=(NAME,), tables=(table,)),),
    )
    lines = document(report).splitlines()
    assert "## H" not in lines
    assert "<" not in document(report).replace(r"\<", "")
