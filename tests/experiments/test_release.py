"""What a release is made of agrees: versions, files that an image and a wheel are built from, the workflow's steps."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

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
        PROJECT["project"]["readme"],
        *PROJECT["project"]["license-files"],
    }
    assert copied == kept and all((ROOT / name).exists() for name in copied)
    for name in needed | {"pyproject.toml"}:
        assert {name, *map(str, Path(name).parents)} & copied, f"{name} is not copied"


def test_the_image_and_the_check_take_the_torch_of_the_makefile():
    (torch,) = re.findall(r"^TORCH +\?= (\S+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert f"ARG TORCH={torch}" in (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert f"TORCH:-{torch}" in (ROOT / "experiments" / "release_check.sh").read_text(encoding="utf-8")


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
