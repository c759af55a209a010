"""Families of networks; importing this package registers the ones that netcarve ships."""

from __future__ import annotations

from spaces.families.base import FAMILIES, Family, FamilySettings, Slot, make_family
from spaces.families.elasticvit import ElasticViT, ElasticViTSettings
from spaces.families.image import ImageFamily, ImageSettings
from spaces.families.mobilenetv3 import MobileNetV3, MobileNetV3Settings
from spaces.families.quantisation import QuantSettings
from spaces.families.resnet import ResNet, ResNetSettings

__all__ = [
    "FAMILIES",
    "ElasticViT",
    "ElasticViTSettings",
    "Family",
    "FamilySettings",
    "ImageFamily",
    "ImageSettings",
    "MobileNetV3",
    "MobileNetV3Settings",
    "QuantSettings",
    "ResNet",
    "ResNetSettings",
    "Slot",
    "make_family",
]
