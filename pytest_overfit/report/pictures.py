"""Pictures of a verdict as HTML: the one way in which any probe's pictures get into reports and notebooks.

A probe puts them into its measurement under "pictures", a list of plain values of these kinds:

* `{"kind": "images", "images": [{"png", "width", "height", "name"}, ...], "caption"}`: `png` is a file in base64;
* `{"kind": "curves", "series": [{"name", "y", "x", "low", "high"}, ...], "title", "x_label", "y_label", "caption"}`:
  numbers, drawn here, so that whoever reads the JSON has the numbers.

Everything is shown as `<img>`: a browser runs no script of a picture there, and all other text is escaped.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from pytest_overfit.report.curves import curves_svg

_FIGURE = "margin: 8px 0; display: block"
#: an edge, because a picture may be as white as the page; no smoothing of enlarged pixels
_IMAGE = "margin: 0 8px 4px 0; border: 1px solid #7a7a7a; image-rendering: pixelated; vertical-align: bottom"


def pictures_html(pictures: Sequence[Mapping[str, Any]]) -> str:
    """A figure with its caption for each picture; one that cannot be drawn says why in its place."""
    return "".join(_figure(each) for each in pictures)


def _figure(picture: Mapping[str, Any]) -> str:
    try:
        body = "".join(_DRAWN[picture["kind"]](picture))
    except Exception as error:  # a probe of a plugin may give anything: a report is not lost over a picture
        body = escape(f"(a picture that cannot be drawn: {type(error).__name__}: {error})")
    caption = escape(str(picture.get("caption", "")))
    return f'<figure style="{_FIGURE}">{body}<figcaption>{caption}</figcaption></figure>'


def _images(picture: Mapping[str, Any]) -> Iterator[str]:
    for each in picture["images"]:
        size = f'width="{int(each["width"])}" height="{int(each["height"])}"'
        yield _img("image/png", str(each["png"]), str(each["name"]), f'{size} style="{_IMAGE}"')


def _curves(picture: Mapping[str, Any]) -> Iterator[str]:
    labels = {key: str(picture.get(key, "")) for key in ("title", "x_label", "y_label")}
    drawn = curves_svg(picture["series"], **labels)
    data = base64.b64encode(drawn.encode()).decode()
    yield _img("image/svg+xml", data, labels["title"], 'style="max-width: 100%; display: block"')


def _img(kind: str, data: str, name: str, look: str) -> str:
    name = escape(name)
    return f'<img src="data:{kind};base64,{escape(data)}" alt="{name}" title="{name}" {look}>'


_DRAWN = {"images": _images, "curves": _curves}
