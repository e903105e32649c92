"""Reads the attributes of ONNX nodes."""

from __future__ import annotations

from typing import Any


def attributes(node: Any) -> dict[str, Any]:
    """Returns the values of the attributes of an ONNX ``NodeProto``, by name."""
    from onnx.helper import get_attribute_value

    return {each.name: get_attribute_value(each) for each in node.attribute}


def pads_itself(values: dict[str, Any]) -> bool:
    """Returns whether a convolution or pool with these attributes finds its pads by auto_pad."""
    return bool(values.get("auto_pad", b"NOTSET") != b"NOTSET")
