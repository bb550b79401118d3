from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from agebench.errors import UserError
from agebench.estimators.exported.loading import open_exported
from agebench.estimators.exported.onnx_inspect import scan_onnx


def model(node: onnx.NodeProto, *weights: onnx.TensorProto) -> onnx.ModelProto:
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", 3, "H", "W"])
    age = helper.make_tensor_value_info("age", TensorProto.FLOAT, ["N"])
    return helper.make_model(helper.make_graph([node], "g", [images], [age], weights))


def test_what_stands_in_a_file(tmp_path: Path) -> None:
    made = model(helper.make_node("Mine", ["images"], ["age"], domain="com.example"))
    made.metadata_props.add(key="a", value="é")
    found = scan_onnx(tmp_path, made.SerializeToString())
    assert found.metadata == {"a": "é"}
    assert found.operators == {("com.example", "Mine")}
    assert not found.external


def outside() -> onnx.TensorProto:
    weight = numpy_helper.from_array(np.zeros(2, np.float32), "w")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../../secret")
    return weight


def hidden() -> onnx.NodeProto:
    """A branch within a node reads another file."""
    body = helper.make_graph([], "b", [], [helper.make_tensor_value_info("w", TensorProto.FLOAT, [2])], [outside()])
    return helper.make_node("If", ["images"], ["age"], then_branch=body, else_branch=body)


def with_function(domain: str, name: str, used: str) -> onnx.ModelProto:
    """A file that defines one operator of a domain and uses one."""
    made = model(helper.make_node(used, ["images"], ["age"], domain=domain))
    body = [helper.make_node("Identity", ["x"], ["y"])]
    made.functions.append(helper.make_function(domain, name, ["x"], ["y"], body, [helper.make_opsetid("", 18)]))
    return made


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (model(helper.make_node("Identity", ["images"], ["age"]), outside()), "weights in other files"),
        (model(hidden()), "weights in other files"),
        (model(helper.make_node("Constant", [], ["age"], value=outside())), "weights in other files"),
        (model(helper.make_node("Mine", ["images"], ["age"], domain="com.example")), "operators of com.example"),
        (with_function("com.microsoft", "Mine", "Gelu"), "operators of com.microsoft"),
        (with_function("com.microsoft", "Gelu", "Gelu"), "operators of com.microsoft"),
        (with_function("com.example", "Mine", "Yours"), "operators of com.example"),
        (with_function("com.example", "Mine", "Mine"), "holds no card"),
        (model(helper.make_node("Identity", ["images"], ["age"])), "holds no card"),
    ],
)
def test_files_of_others_are_refused_before_a_runtime_sees_them(
    made: onnx.ModelProto, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agebench.estimators.exported.onnx_file.onnx_session", lambda *_: pytest.fail("opened"))
    (tmp_path / "model.onnx").write_bytes(made.SerializeToString())
    with pytest.raises(UserError, match=words):
        open_exported(tmp_path / "model.onnx")


def test_graphs_within_graphs_end(tmp_path: Path) -> None:
    content = b""
    for _ in range(60):  # attribute.g (6) . node.attribute (5) . graph.node (1)
        for tag in (0x32, 0x2A, 0x0A):
            length = len(content)
            varint = bytes([length & 127 | 128, length >> 7]) if length > 127 else bytes([length])
            content = bytes([tag]) + varint + content
    with pytest.raises(UserError, match="deep"):
        scan_onnx(tmp_path, bytes([0x3A]) + bytes([len(content) & 127 | 128, len(content) >> 7]) + content[:])
