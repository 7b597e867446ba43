"""The conversion against a network of known tensors, exported to a graph built by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from demo.convert import Agreement, Graph, convert, fuse_qkv, rendered, timm_name, timm_tensors
from losa.errors import InputError

onnx = pytest.importorskip("onnx", reason="the extra `demo` is not installed")

Array = NDArray[np.float32]
WIDTH = 4
LAYER = "backbone.encoder.layer.0."
DENSE = {
    "attention.attention.query": "attn.q",
    "attention.attention.key": "attn.k",
    "attention.attention.value": "attn.v",
    "attention.output.dense": "attn.proj",
    "mlp.fc1": "mlp.fc1",
}


class Export:
    """Builds a graph as an exporter does: named biases, anonymous and transposed weights."""

    def __init__(self) -> None:
        self.generator = np.random.default_rng(0)
        self.nodes: list[Any] = []
        self.initializers: dict[str, Array] = {}
        self.truth: dict[str, Array] = {}

    def tensor(self, name: str, *shape: int) -> Array:
        self.initializers[name] = self.generator.normal(size=shape).astype(np.float32)
        return self.initializers[name]

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        output = f"t{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def dense(self, tensor: str, module: str, *, bias_first: bool) -> str:
        anonymous = f"onnx::MatMul_{len(self.nodes)}"
        self.truth[f"{module}.weight"] = self.tensor(anonymous, WIDTH, WIDTH).T
        self.truth[f"{module}.bias"] = self.tensor(f"{LAYER}{module}.bias", WIDTH)
        product = self.node("MatMul", tensor, anonymous)
        terms = (f"{LAYER}{module}.bias", product)
        return self.node("Add", *(terms if bias_first else terms[::-1]))

    def model(self) -> Any:
        helper, kind = onnx.helper, onnx.TensorProto.FLOAT
        values = [onnx.numpy_helper.from_array(v, n) for n, v in self.initializers.items()]
        ends = [helper.make_tensor_value_info(name, kind, None) for name in ("x", "t0")]
        return helper.make_model(helper.make_graph(self.nodes, "g", ends[:1], ends[1:], values))


@pytest.fixture
def export() -> Export:
    """One block, and position embeddings that are interpolated; a second Resize is a decoy."""
    export = Export()
    export.tensor("onnx::Reshape_9", 1, 9, WIDTH)
    export.tensor("onnx::Concat_8", 1, 1, WIDTH)
    export.tensor("backbone.embeddings.cls_token", 1, 1, WIDTH)
    export.node("Resize", export.node("Relu", "x"))
    grid = export.node("Transpose", export.node("Reshape", "onnx::Reshape_9", "shape"))
    flat = export.node("Reshape", export.node("Resize", grid), "shape")
    tokens = export.node("Add", "x", export.node("Concat", "onnx::Concat_8", flat, axis=1))
    for number, module in enumerate(DENSE):
        tokens = export.dense(tokens, module, bias_first=number % 2 == 0)
    scale = f"{LAYER}layer_scale2.lambda1"
    export.tensor(scale, WIDTH)
    residual = export.node("Add", export.node("Mul", tokens, scale), "t3")
    export.tensor("backbone.layernorm.weight", WIDTH)
    export.tensor("backbone.layernorm.bias", WIDTH)
    scaled = export.node("Mul", residual, "backbone.layernorm.weight")
    export.node("Add", scaled, "backbone.layernorm.bias")
    export.tensor("decoder.bias", WIDTH)
    return export


def test_every_anonymous_weight_is_found_by_the_bias_added_to_its_product(export: Export) -> None:
    tensors = timm_tensors(Graph(export.model()))
    for part in ("weight", "bias"):
        parts = [export.truth[f"attention.attention.{p}.{part}"] for p in ("query", "key", "value")]
        assert np.array_equal(tensors[f"blocks.0.attn.qkv.{part}"], np.concatenate(parts))
        assert np.array_equal(
            tensors[f"blocks.0.attn.proj.{part}"], export.truth[f"attention.output.dense.{part}"]
        )
        assert np.array_equal(tensors[f"blocks.0.mlp.fc1.{part}"], export.truth[f"mlp.fc1.{part}"])


def test_positions_are_the_cls_token_and_the_grid_that_is_interpolated(export: Export) -> None:
    positions = timm_tensors(Graph(export.model()))["pos_embed"]
    assert np.array_equal(positions[:, :1], export.initializers["onnx::Concat_8"])
    assert np.array_equal(positions[:, 1:], export.initializers["onnx::Reshape_9"])


def test_nothing_but_the_backbone_is_taken(export: Export) -> None:
    dense = [f"blocks.0.{name}" for name in ("attn.qkv", "attn.proj", "mlp.fc1")]
    assert sorted(timm_tensors(Graph(export.model()))) == sorted(
        [
            *(f"{name}.{part}" for name in (*dense, "norm") for part in ("bias", "weight")),
            *("blocks.0.ls2.gamma", "cls_token", "pos_embed"),
        ]
    )


def test_a_blocks_output_is_the_residual_sum_after_its_second_layer_scale(export: Export) -> None:
    graph = Graph(export.model())
    assert graph.producers[graph.block_output(0)].input[1] == "t3"
    assert graph.norm_output() == export.nodes[-1].output[0]


def test_a_bias_that_no_product_meets_is_a_foreign_graph(export: Export) -> None:
    export.nodes = [node for node in export.nodes if node.op_type != "MatMul"]
    with pytest.raises(InputError, match="is not added to a matrix product"):
        timm_tensors(Graph(export.model()))


def test_fused_rows_are_query_then_key_then_value() -> None:
    order = ("value", "query", "key")
    values = dict(zip(order, np.array([[2, 2], [0, 0], [1, 1]], np.float32), strict=True))
    parts = {f"blocks.0.attn.{part}.bias": value for part, value in values.items()}
    fused = fuse_qkv({**parts, "norm.bias": np.ones(1, np.float32)})
    assert sorted(fused) == ["blocks.0.attn.qkv.bias", "norm.bias"]
    assert fused["blocks.0.attn.qkv.bias"].tolist() == [0, 0, 1, 1, 2, 2]


def test_every_name_of_timms_vit_has_a_source() -> None:
    import timm

    network = timm.create_model("vit_small_patch14_dinov2", pretrained=False, depth=1, img_size=28)
    modules = [*("norm1", "norm2", "mlp.fc1", "mlp.fc2"), "attention.output.dense"]
    modules += [f"attention.attention.{part}" for part in ("query", "key", "value")]
    theirs = [f"encoder.layer.0.{m}.{p}" for m in modules for p in ("weight", "bias")]
    theirs += [f"encoder.layer.0.layer_scale{number}.lambda1" for number in (1, 2)]
    theirs += [f"embeddings.patch_embeddings.projection.{part}" for part in ("weight", "bias")]
    theirs += ["embeddings.cls_token", "layernorm.weight", "layernorm.bias"]
    ours = fuse_qkv({timm_name(f"backbone.{name}"): np.zeros(1, np.float32) for name in theirs})
    assert {*ours, "pos_embed"} == set(network.state_dict())


def test_a_checked_conversion_is_remembered(tmp_path: Path) -> None:
    target = tmp_path / "w.safetensors"
    target.touch()
    target.with_suffix(".json").write_text('[{"tensor": "norm", "same_grid": 0, "timm_grid": 1}]')
    assert convert(tmp_path / "none.onnx", target) == [Agreement("norm", 0, 1)]


def test_the_picture_of_the_check_is_rendered_the_same_each_time_and_has_contrast() -> None:
    picture = rendered()
    assert picture.shape == (224, 224, 3)
    assert np.array_equal(picture, rendered())
    assert not np.array_equal(picture, rendered(seed=1))
    assert picture.reshape(-1, 3).std(0).min() > 30
