"""The project's plots: letters of any script, with whatever fonts are installed, and no warning."""
import io

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.font_manager import fontManager

from utils.reports import plots


@pytest.fixture
def font(tmp_path):
    """The name of a font that is installed for the test, which has one letter, \u4e2d, a square."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 1000), (1000, 1000), (1000, 0)):
        pen.lineTo(corner)
    pen.closePath()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "square"])
    builder.setupCharacterMap({ord("\u4e2d"): "square"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "square": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "square": (1000, 0)})
    builder.setupHorizontalHeader(ascent=1000, descent=0)
    builder.setupNameTable({"familyName": "Square Sans", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(str(tmp_path / "square.ttf"))
    before = list(fontManager.ttflist)
    fontManager.addfont(str(tmp_path / "square.ttf"))
    plots._font_with.cache_clear()
    yield "Square Sans"
    fontManager.ttflist[:] = before
    plots._font_with.cache_clear()


@pytest.mark.skipif(not plots.TAKES_SEVERAL_FONTS, reason="this matplotlib has one font to a text")
@pytest.mark.filterwarnings("error")
def test_letters_that_matplotlibs_font_lacks_are_of_an_installed_font(font):
    with plots.drawing(io.BytesIO(), "title", 4, 3) as (figure, axes):
        axes[0, 0].set_xlabel(plots.plain("Caf\xe9 \u4e2d\u6587"))
    text = axes[0, 0].xaxis.label
    assert (text.get_text(), text.get_fontfamily()) == ("Caf\xe9 \u4e2d\\u6587", [plots.FONT, font])


@pytest.mark.filterwarnings("error")
def test_letters_that_no_font_has_are_escaped(monkeypatch):
    monkeypatch.setattr(plots, "TAKES_SEVERAL_FONTS", False)
    plots._font_with.cache_clear()
    file = io.BytesIO()
    with plots.drawing(file, "\u4e2d\u6587, caf\xe9, \u041f\u0440\u0438\u0432\u0435\u0442", 4, 3) as (figure, _):
        pass
    assert figure._suptitle.get_text() == "\\u4e2d\\u6587, caf\xe9, \u041f\u0440\u0438\u0432\u0435\u0442"
    assert file.getvalue().startswith(b"\x89PNG")
