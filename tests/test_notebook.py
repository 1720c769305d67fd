"""docs/notebook.ipynb runs from its first cell to the last, on the images that the package has."""

import csv
import os

import pytest
from conftest import ROOT

nbformat = pytest.importorskip("nbformat", reason="for Colab, whose Python is current")
nbclient = pytest.importorskip("nbclient", reason="for Colab, whose Python is current")
PATH = os.path.join(ROOT, "docs", "notebook.ipynb")


@pytest.fixture(scope="module")
def committed():
    return nbformat.read(PATH, as_version=4)


def test_it_is_valid_and_holds_no_output(committed):
    nbformat.validate(committed)
    assert os.path.getsize(PATH) < 10000
    for cell in committed.cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None


def test_every_cell_runs(committed, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", ROOT)
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    client = nbclient.NotebookClient(committed, timeout=600, kernel_name="python3",
                                     resources={"metadata": {"path": str(tmp_path)}})
    ran = client.execute()
    outputs = [output for cell in ran.cells for output in cell.get("outputs", ())]
    text = "".join(output.get("text", "") for output in outputs)
    assert "FACE      0.9" in text and "NON_FACE" in text and "coffee.jpg" in text
    shown = [output["data"]["image/png"] for output in outputs if "data" in output]
    assert len(shown) == 1 and len(shown[0]) > 100000, "the image beside its heat map"
    with open(str(tmp_path / "faces.csv"), newline="") as stream:
        rows = {os.path.basename(row["file"]): row["class"] for row in csv.DictReader(stream)}
    assert len(rows) == 4 and rows["astronaut.jpg"] == "FACE" and rows["coffee.jpg"] == "NON_FACE"
