"""docs/house.svg is what the imports are now."""

from __future__ import annotations

import importlib.util

from tests.support import ROOT


def test_the_picture_of_the_house_is_current():
    spec = importlib.util.spec_from_file_location("picture", ROOT / "docs/make_house_picture.py")
    assert spec is not None
    assert spec.loader is not None
    picture = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(picture)
    assert picture.PICTURE.read_text(encoding="utf-8") == picture.draw(), (
        "type: python docs/make_house_picture.py"
    )
