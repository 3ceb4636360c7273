"""The examples of docs/features.md are right."""

import re
import shlex
from pathlib import Path

import yaml
from typer.testing import CliRunner

from ray_al.cli import app
from ray_al.data.datasets import parse_dataset
from ray_al.data.space_definitions import parse_spaces

PAGE = (Path(__file__).parents[2] / "docs" / "features.md").read_text()


def test_the_yaml_parses():
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    sweep = yaml.safe_load(block)
    labels = [parse_dataset(entry).label for entry in sweep["axes"]["dataset"]]
    assert labels == ["imagenet", "imagenet[limit=100000]", "photos"]
    assert parse_spaces(sweep["spaces"])["clip"].path == "emb/photos"


def test_the_commands_are_understood(monkeypatch):
    import ray_al.features

    asked = []
    monkeypatch.setattr(ray_al.features, "run_features", lambda request, *rest: asked.append(request) or _Done())
    commands = re.findall(r"^ray-al (.*)$", PAGE, re.MULTILINE)
    for command in commands:
        answer = CliRunner().invoke(app, shlex.split(command))
        assert answer.exit_code == 0, answer.output
    assert [request.backbone.name for request in asked] == ["resnet50", "vit_b_16", "my_pkg.nets:clip"]
    assert asked[0].batch == 256
    assert asked[2].preprocess["std"] == (0.269, 0.261, 0.276)


def test_every_option_of_the_page_is_one_of_the_command():
    known = CliRunner().invoke(app, ["features", "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output
    for option in set(re.findall(r"`(--[a-z-]+)", PAGE)):
        assert option in known, option


class _Done:
    def summary(self, out):
        return str(out)
