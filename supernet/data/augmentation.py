"""Random changes of training images: their settings, and all of them in order."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from supernet.data.chance import Chance
from supernet.data.colour import jitter
from supernet.data.image_set import resize
from supernet.data.normalisation import Normalisation
from supernet.data.rand_augment import LARGEST_MAGNITUDE, rand_augment
from supernet.data.warp import random_affine, random_flip, random_resized_crop

Share = Annotated[float, Field(ge=0, lt=1)]
Angle = Annotated[float, Field(ge=0, le=180)]


class Augmentation(BaseModel):
    """How much training images are changed at random.

    Attributes:
        crop: Least share of the area that a random resized crop keeps; 1: no crop.
        horizontal_flip: Probability of mirroring left to right.
        rotation: Largest random rotation, degrees.
        scale: Largest random relative change of size.
        shift: Largest random shift, share of the image.
        shear: Largest random shear, tangent of the angle.
        randaugment_operations: Operations of RandAugment on each image.
        randaugment_magnitude: Their magnitude, 0 to 10.
        brightness: Largest random relative change.
        contrast: Likewise.
        saturation: Likewise.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    crop: Annotated[float, Field(gt=0, le=1)] = 1.0
    horizontal_flip: Annotated[float, Field(ge=0, le=1)] = 0.0
    rotation: Angle = 12.0
    scale: Share = 0.12
    shift: Share = 0.1
    shear: Share = 0.12
    randaugment_operations: Annotated[int, Field(ge=0)] = 0
    randaugment_magnitude: Annotated[float, Field(ge=0, le=LARGEST_MAGNITUDE)] = 1.0
    brightness: Share = 0.0
    contrast: Share = 0.0
    saturation: Share = 0.0


def augment(
    images: Tensor,
    strength: Augmentation,
    rng: Chance,
    size: int | None = None,
    normalisation: Normalisation | None = None,
) -> Tensor:
    """Crop or resize, flip, affine map, RandAugment, colours, in this order.

    Args:
        images: float32 [n, c, h, w].
        strength: How much; what is off draws nothing from `rng`.
        rng: All randomness comes from it.
        size: Height and width of the result; default: as the images.
        normalisation: What the images were normalised by. The affine map fills with zeros, which
            is black, or the mean colour of normalised images.

    Returns:
        float32 [n, c, size, size], normalised like `images`.
    """
    if strength.crop < 1:
        images = random_resized_crop(images, strength.crop, size or images.shape[-1], rng)
    elif size is not None:
        images = resize(images, size)
    if strength.horizontal_flip:
        images = random_flip(images, strength.horizontal_flip, rng)
    affine = (strength.rotation, strength.scale, strength.shift, strength.shear)
    if any(affine):
        images = random_affine(images, *affine, rng)
    changes = (strength.brightness, strength.contrast, strength.saturation)
    if strength.randaugment_operations or any(changes):
        known = normalisation or Normalisation()
        colours = known.invert(images)
        colours = rand_augment(
            colours, strength.randaugment_operations, strength.randaugment_magnitude, rng
        )
        images = known.apply(jitter(colours, changes, rng))
    return images
