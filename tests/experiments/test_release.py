"""What a release is made of agrees: versions, files that an image and a wheel are built from, the workflow's steps."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from tests.support.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_version_is_the_same_everywhere():
    version = PROJECT["project"]["version"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == version


def test_the_image_has_all_that_the_wheel_is_built_from():
    """A file that hatch includes, or that pyproject.toml names, is copied into the image and not ignored there."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    copied = {word for line in re.findall(r"^COPY (?!--)(.*)", text, re.MULTILINE) for word in line.split()[:-1]}
    kept = set(re.findall(r"^!(.*)", (ROOT / ".dockerignore").read_text(encoding="utf-8"), re.MULTILINE))
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {
        *wheel["packages"],
        *wheel["force-include"],
        "hatch_build.py",
        "README.md",  # which it reads
        *PROJECT["project"]["license-files"],
    }
    assert copied == kept and all((ROOT / name).exists() for name in copied)
    for name in needed | {"pyproject.toml"}:
        assert {name, *map(str, Path(name).parents)} & copied, f"{name} is not copied"


@pytest.fixture
def hook(monkeypatch):
    """hatch_build.py, without the build backend that calls it."""
    backend = SimpleNamespace(MetadataHookInterface=object)
    monkeypatch.setitem(sys.modules, "hatchling.metadata.plugin.interface", backend)
    spec = spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ADDRESS = "https://github.com/me/tltrain"


@pytest.mark.parametrize(
    ("text", "linked", "bare"),
    [
        ("[GPUs](docs/gpus.md#fsdp)", f"[GPUs]({ADDRESS}/blob/v1/docs/gpus.md#fsdp)", "GPUs"),
        (
            "[`tltrain/mae.py`](tltrain/mae.py)",
            f"[`tltrain/mae.py`]({ADDRESS}/blob/v1/tltrain/mae.py)",
            "`tltrain/mae.py`",
        ),
        ("[`examples/`](examples/)", f"[`examples/`]({ADDRESS}/tree/v1/examples/)", "`examples/`"),
        ("![A [b] c](docs/a.png)", f"![A [b] c]({ADDRESS}/raw/v1/docs/a.png)", "*A [b] c*"),
        (
            "[x](https://arxiv.org) [y](#stages)",
            "[x](https://arxiv.org) [y](#stages)",
            "[x](https://arxiv.org) [y](#stages)",
        ),
        ("53.8 [42, 65] | f(x)", "53.8 [42, 65] | f(x)", "53.8 [42, 65] | f(x)"),
    ],
)
def test_links_of_the_description(hook, text, linked, bare):
    assert hook.description(text, ADDRESS, "v1") == linked
    assert hook.description(text, None, "v1") == bare


def test_no_link_of_the_description_on_pypi_is_relative(hook):
    """The workflow says where the repository is; a build without it has no dead links either."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for variables in ({"GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "me/tltrain"}, {}):
        address = hook.repository(variables)
        targets = re.findall(r"\]\(([^()\s]+)\)", hook.description(readme, address, "v1"))
        assert targets and all(target.startswith(("https://", "#")) for target in targets)
        assert hook.urls(address)["Paper"] in readme
    assert hook.urls(ADDRESS)["Source"] == ADDRESS and set(PROJECT["project"]["dynamic"]) == {"readme", "urls"}


def test_the_image_and_the_check_take_the_torch_of_the_makefile():
    (torch,) = re.findall(r"^TORCH +\?= (\S+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert f"ARG TORCH={torch}" in (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert f"TORCH:-{torch}" in (ROOT / "experiments" / "release_check.sh").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("nvcc", "torch", "status"),
    [
        (None, "none", 0),
        ("Cuda compilation tools, release 13.0, V13.0.88", "13", 0),
        ("Cuda compilation tools, release 12.8, V12.8.93", "13", 1),
        ("Cuda compilation tools, release 13.0, V13.0.88", "none", 1),
    ],
)
def test_an_image_whose_cuda_is_not_that_of_torch_is_not_built(tmp_path, nvcc, torch, status):
    """The command of the Dockerfile, with programs that say what those of an image would say."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    (command,) = re.findall(r"^RUN (of_torch=(?:.*\\\n)*.*)", text, re.MULTILINE)
    for name, said in (("python", torch), ("nvcc", nvcc)):
        if said is not None:
            (tmp_path / name).write_text(f"#!/bin/sh\necho '{said}'\n")
            (tmp_path / name).chmod(0o755)
    command = command.replace("/opt/tltrain/bin/python", str(tmp_path / "python"))
    ran = subprocess.run(
        ["/bin/sh", "-c", command], env={"PATH": f"{tmp_path}:/bin:/usr/bin"}, capture_output=True, text=True
    )
    assert ran.returncode == status and ("choose another BASE or TORCH_INDEX" in ran.stderr) is bool(status)


def test_only_a_tag_that_passed_is_published_and_without_a_token():
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8")
    jobs = yaml.safe_load(text)["jobs"]
    assert jobs["test-wheel"]["needs"] == "build" and jobs["publish"]["needs"] == "test-wheel"
    assert (
        jobs["publish"]["permissions"] == {"id-token": "write"}
        and jobs["publish"]["if"] == "github.event_name == 'push'"
    )
    assert "secrets." not in text and "password" not in text
    assert any("release_check.sh" in step.get("run", "") for step in jobs["test-wheel"]["steps"])
