"""Image classification data: data sets, their three splits, augmentation."""

from __future__ import annotations

from supernet.data.augmentation import Augmentation, augment
from supernet.data.config import DataConfig
from supernet.data.dataset import DATASETS, DatasetSettings, ImageDataset, Labelled
from supernet.data.digits import Digits
from supernet.data.encoded import EncodedImages, EncodedRows, EncodedSettings, decode_image
from supernet.data.huggingface import HuggingFace
from supernet.data.image_folder import ImageFolder
from supernet.data.image_set import SPLITS, DataSplits, Images, ImageSet, resize
from supernet.data.load import load_data
from supernet.data.normalisation import Normalisation
from supernet.data.npz import Npz

__all__ = [
    "DATASETS",
    "SPLITS",
    "Augmentation",
    "DataConfig",
    "DataSplits",
    "DatasetSettings",
    "Digits",
    "EncodedImages",
    "EncodedRows",
    "EncodedSettings",
    "HuggingFace",
    "ImageDataset",
    "ImageFolder",
    "ImageSet",
    "Images",
    "Labelled",
    "Normalisation",
    "Npz",
    "augment",
    "decode_image",
    "load_data",
    "resize",
]
