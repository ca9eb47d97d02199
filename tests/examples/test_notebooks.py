"""The notebooks of examples/notebooks: they run from the first cell to the last, and are stored without outputs."""

from __future__ import annotations

import json
import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.small_runs import SMALL

pytestmark = pytest.mark.slow

FOLDER = ROOT / "examples" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
needs_jupyter = pytest.mark.skipif(
    find_spec("nbclient") is None or find_spec("ipykernel") is None,
    reason="needs nbclient and ipykernel: the extra dev",
)


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_is_stored_without_outputs(file):
    notebook = json.loads(file.read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert code and all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert all(cell["metadata"] == {} for cell in notebook["cells"])
    assert f"({file.name})" in (FOLDER / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def place(tmp_path, models_cache, monkeypatch) -> Path:
    """A copy of the folder whose relative paths lead into the repository."""
    shutil.copytree(FOLDER, tmp_path / "examples" / "notebooks", ignore=shutil.ignore_patterns("outputs"))
    os.symlink(ROOT / "examples" / "support_desk", tmp_path / "examples" / "support_desk")
    os.symlink(ROOT / "experiments", tmp_path / "experiments")
    for name, value in {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "IPYTHONDIR": str(tmp_path / "ipython"),
    }.items():
        monkeypatch.setenv(name, value)
    return tmp_path / "examples" / "notebooks"


def run(place: Path, name: str) -> str:
    """Run a notebook and return what its cells printed."""
    import nbformat
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    class Here(KernelSpecManager):
        def get_kernel_spec(self, name: str) -> KernelSpec:
            command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(argv=command, display_name="here", language="python")

    notebook = nbformat.read(place / name, as_version=4)
    nbformat.validate(notebook)
    kernel = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=Here())
    resources = {"metadata": {"path": str(place)}}
    NotebookClient(notebook, timeout=300, km=kernel, resources=resources).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return "".join(output.get("text", "") for output in outputs)


@needs_jupyter
def test_the_ablation_is_looked_at(place):
    printed = run(place, "look_at_an_ablation.ipynb")
    assert "MAE + PKT + IRM" in printed and "49.5 / 32.4 / 16.2" in printed and "paper" in printed


@needs_jupyter
@pytest.mark.slow  # three processes that load torch, 45 s of processor time
def test_a_model_is_trained_on_a_users_file_and_asked(place):
    printed = run(place, "train_on_your_data.ipynb")
    assert "Traceback" not in printed
    check(place, printed)


FEWER = {"stage=inspect": ("data.limit=6",), "stage=pkt": (*SMALL, "data.limit=6")}


@needs_jupyter
def test_the_cells_of_the_training_run_in_one_process(place, tltrain, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setenv("MPLBACKEND", "agg")
    notebook = json.loads((place / "train_on_your_data.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    names: dict = {}
    exec(cells[0], names)
    said = []

    def command(*words: str) -> None:
        (folder,) = (word.partition("=")[2] for word in words if word.startswith("hydra.run.dir="))
        own = [word for word in words if not word.startswith("hydra.run.dir=")]
        said.append(tltrain(*own, *FEWER.get(words[0], ()), folder=place / folder))

    names["tltrain"] = command
    for cell in cells[1:]:
        exec(cell, names)
    assert len(said) == 4
    check(place, "")


def check(place: Path, printed: str) -> None:
    for file in ("check/check.html", "inspect/inspect.html", "pkt/model/model.safetensors", "predict/prediction.json"):
        assert (place / "outputs" / file).is_file(), printed
