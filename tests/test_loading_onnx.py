"""ONNX files: what they tell, and what is refused before anything runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_folders import save_onnx

from workbench.errors import ModelError, UnsafeModel
from workbench.loading.onnx_file import OnnxFile


def test_an_onnx_file(tmp_path: Path) -> None:
    source = OnnxFile(save_onnx(tmp_path / "model.onnx"))
    source.check()
    facts = source.facts()
    assert (facts.has_module, facts.layers, facts.blocks) == (False, ("classifier",), 0)
    assert source.inputs() == ("input_ids",)
    assert source.labels() == ("LABEL_0", "LABEL_1")
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {"0": "bad", "1": "good"}}))
    assert OnnxFile(tmp_path / "model.onnx").labels() == ("bad", "good")


def test_a_truncated_onnx_file(tmp_path: Path) -> None:
    path = save_onnx(tmp_path / "model.onnx")
    whole = path.read_bytes()
    # Cuts at every place: some leave a valid message that lacks parts of the graph.
    for size in range(0, len(whole), 23):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelError, match="is truncated or no ONNX file"):
            OnnxFile(path).check()


def test_an_onnx_graph_that_hangs_together_nowhere(tmp_path: Path) -> None:
    import onnx

    path = save_onnx(tmp_path / "model.onnx")
    model = onnx.load(str(path))
    model.graph.node[1].input[0] = "nothing"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="is truncated or no ONNX file"):
        OnnxFile(path).check()


def test_external_data_beside_the_file(tmp_path: Path) -> None:
    path = save_onnx(tmp_path / "model.onnx", external="weights.bin")
    source = OnnxFile(path)
    source.check()
    before = source.fingerprint()
    data = tmp_path / "weights.bin"
    raw = bytearray(data.read_bytes())
    raw[0] ^= 1
    data.write_bytes(raw)
    assert OnnxFile(path).fingerprint() != before
    data.write_bytes(raw[:10])
    with pytest.raises(ModelError, match="is truncated"):
        OnnxFile(path).check()
    data.unlink()
    with pytest.raises(ModelError, match="is missing"):
        OnnxFile(path).check()


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "sub/../../secret.bin", "link.bin"])
def test_external_data_outside_the_folder_is_refused(tmp_path: Path, location: str) -> None:
    import onnx

    folder = tmp_path / "model"
    path = save_onnx(folder / "model.onnx", external="weights.bin")
    (tmp_path / "secret.bin").write_bytes((folder / "weights.bin").read_bytes())
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    model = onnx.load(str(path), load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UnsafeModel, match="outside its folder"):
        OnnxFile(path).check()


def test_onnx_inputs_that_no_tokenizer_gives(tmp_path: Path) -> None:
    import onnx

    path = save_onnx(tmp_path / "model.onnx")
    model = onnx.load(str(path))
    model.graph.input[0].name = model.graph.node[0].input[1] = "pixels"
    onnx.save_model(model, str(path))
    with pytest.raises(ModelError, match="takes pixels"):
        OnnxFile(path).check()
