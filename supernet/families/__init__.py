"""Supernets of the families of `spaces.families`; importing this package registers them."""

from __future__ import annotations

from supernet.families.elasticvit import ElasticViTSupernet
from supernet.families.mobilenetv3 import MobileNetV3Supernet
from supernet.families.registry import SUPERNETS, build_supernet
from supernet.families.resnet import ResNetSupernet

__all__ = [
    "SUPERNETS",
    "ElasticViTSupernet",
    "MobileNetV3Supernet",
    "ResNetSupernet",
    "build_supernet",
]
