"""Whether images or clips are asked for, and of clips which frames: flags, model and data set."""

from __future__ import annotations

from typing import Any, Final

from losa.config import ExtractConfig
from losa.errors import UsageError
from losa.extract.clips.readers import resolve_decoder
from losa.extract.sampling import ClipSampling, DecoderName
from losa.extract.vivitshapes import usual_clip
from losa.store.plan import MAX_VIEWS

USUAL_FRAMES: Final = 16
"""Frames that a backbone for images sees of a clip."""

CLIP_SETS: Final = ("k400", "k600", "ssv2", "ucf101", "hmdb51", "epic")
"""Known data sets of clips; the name may be followed by a colon and which of its forms."""

_OF_CLIPS: Final = ("frame_stride", "short", "clips", "crops", "decoder")


def is_clip_set(dataset: str) -> bool:
    """Whether a data set is one of clips by its name.

    Example:
        >>> is_clip_set("epic:verb"), is_clip_set("folder:k400")
        (True, False)
    """
    return dataset.partition(":")[0] in CLIP_SETS


def is_of_clips(config: ExtractConfig) -> bool:
    """Whether samples are clips: frames are asked for, or the model or the data set says so."""
    is_video_model = usual_clip(config.model) is not None
    return config.frames is not None or is_video_model or is_clip_set(config.dataset)


def asked_clip(config: ExtractConfig, decoder: DecoderName | None = None) -> ClipSampling | None:
    """Which frames of a clip a configuration asks for; ``None`` for images.

    Args:
        config: flags, model and data set.
        decoder: counts instead of the configuration's, which has to be installed.

    Raises:
        UsageError: flags of clips are given for images, or views are too many.
        ResourceError: the decoder that is asked for is not here.
    """
    if not is_of_clips(config):
        _check_images(config)
        return None
    if config.clips * config.crops > MAX_VIEWS:
        what = f"{config.clips} times {config.crops} crops are more than {MAX_VIEWS} views"
        raise UsageError("--clips", what, "give fewer clips or crops")
    frames, stride = usual_clip(config.model) or (USUAL_FRAMES, None)
    if config.frame_stride is not None:
        stride = None if config.frame_stride == "uniform" else config.frame_stride
    return ClipSampling(
        frames=config.frames or frames,
        stride=stride,
        short=config.short,
        decoder=decoder or resolve_decoder(config.decoder),
        clips=config.clips,
        crops=config.crops,
    )


def flags_of(clip: ClipSampling) -> dict[str, Any]:
    """The configuration that asks for a clip, by the names of its fields."""
    return {
        "frames": clip.frames,
        "frame_stride": "uniform" if clip.stride is None else clip.stride,
        "short": clip.short,
        "clips": clip.clips,
        "crops": clip.crops,
        "decoder": clip.decoder,
    }


def _check_images(config: ExtractConfig) -> None:
    """Refuse for images what only clips have."""
    fields = type(config).model_fields
    for name in _OF_CLIPS:
        if getattr(config, name) != fields[name].default:
            flag = f"--{name.replace('_', '-')}"
            what = f"is about clips, and {config.dataset} is read as images"
            raise UsageError(flag, what, "give --frames too, or leave it away")
