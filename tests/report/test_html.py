from __future__ import annotations

import base64
import io

from PIL import Image

from report.html import page
from report.markdown import document
from report.section import Picture, Report, Section

NAME = '"><script>alert(1)</script>'


def test_pictures_stand_in_the_page_with_escaped_names() -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, "JPEG")
    picture = Picture(jpeg=file.getvalue(), title=NAME, lines=(NAME, "score 0.9"))
    section = Section(title="Mistakes", pictures=(picture,))
    report = Report(name="x", title="x", subtitle="x", summary=("x",), sections=(section,))
    text = page(report)
    assert NAME not in text
    assert "&#34;&gt;&lt;script&gt;" in text
    content = text.partition("data:image/jpeg;base64,")[2].partition('"')[0]
    assert base64.b64decode(content) == file.getvalue()
    assert "score 0.9" in text
    assert "base64" not in document(report)
