"""A backbone's profile by its name: from the table, else from timm's model without weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from losa.extract.known import Anatomy, Profile, known_models, usual_size
from losa.extract.vivitshapes import VideoShape, is_video_model, video_shape


def profile_of(model: str, img_size: int | None = None, frames: int | None = None) -> Profile:
    """The profile of a model; one that the table lacks costs the import of timm.

    With ``frames`` a model of images is one of clips, which it sees frame by frame; one of clips
    has frames of its own.

    Raises:
        UsageError: the model is not known to timm, or is no plain vision transformer.

    Example:
        >>> round(profile_of("vit_g").flops(40) / 1e9)
        534
        >>> round(profile_of("vivit_e").flops(56) / 1e12)
        38
    """
    if is_video_model(model):
        return profile_of_video(video_shape(model), img_size, frames)
    found = next((known for known in known_models() if model in (known.alias, known.name)), None)
    if found is None:
        profile = profile_by_timm(model)
    else:
        anatomy = Anatomy(found.depth, found.channels, 1, (found.patch, found.patch))
        size = (found.img_size, found.img_size)
        profile = Profile(found.name, anatomy, found.mlp, found.parameters, size)
    profile = replace(profile, frames=frames)
    return profile if img_size is None else replace(profile, img_size=(img_size, img_size))


def profile_of_video(
    shape: VideoShape, img_size: int | None = None, frames: int | None = None
) -> Profile:
    """The profile of a video backbone of this shape."""
    side = shape.img_size if img_size is None else img_size
    return Profile(
        name=shape.name,
        anatomy=Anatomy(shape.blocks, shape.width, 1, (shape.patch, shape.patch)),
        mlp=shape.mlp,
        parameters=shape.parameters,
        img_size=(side, side),
        frames=shape.frames if frames is None else frames,
        video=shape,
    )


def profile_by_timm(model: str) -> Profile:
    """The profile of a timm model, built without memory for its weights.

    Raises:
        UsageError: the model is not known to timm, or is no plain vision transformer.
    """
    import timm
    import torch

    from losa.extract.backbones import model_name
    from losa.extract.vit import anatomy_of

    name = model_name(model)
    with torch.device("meta"):
        built: Any = timm.create_model(name, num_classes=0)
    anatomy = anatomy_of(built, name)
    matrices = [item for item in built.blocks[0].mlp.parameters() if item.ndim > 1]
    mlp = sum(matrix.numel() for matrix in matrices) // (2 * anatomy.channels)
    height, width = timm.models.resolve_pretrained_cfg(name).input_size[-2:]
    parameters = sum(item.numel() for item in built.parameters())
    return Profile(name, anatomy, mlp, parameters, usual_size(name, (height, width)))
