"""The installed package: it contains its configuration, and nothing else of the repository."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.processes import python


@pytest.mark.slow  # pip builds a wheel, and downloads the build backend from the package index
def test_the_wheel_carries_its_configuration(tmp_path):
    python(ROOT, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT))
    (wheel,) = tmp_path.glob("tltrain-*.whl")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
        names = archive.namelist()
    files = {str(path.relative_to(ROOT)) for path in (ROOT / "conf").rglob("*.yaml")}
    assert files and {"tltrain/py.typed", *(f"tltrain/{name}" for name in files)} <= set(names)
    assert not any(name.startswith(("tests/", "experiments/", "conf/", "outputs/")) for name in names)
    where = python(tmp_path, "-c", "import tltrain.config as c; print(c.CONF_DIR)", path=installed).stdout.strip()
    assert Path(where) == installed / "tltrain" / "conf"
    composed = python(tmp_path, "-m", "tltrain", "--cfg", "job", "stage=mae", path=installed).stdout
    assert "name: mae" in composed
    assert "python -m tltrain" in python(tmp_path, "-m", "tltrain", "--help", path=installed).stdout
    python(tmp_path, "-m", "tltrain", "stage=mae", "data.size=5", "hydra.run.dir=run", path=installed)
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["trajectories"] == 5
