"""`python -m router init`: a file that names every setting, and changes nothing until it is edited."""

import re
import stat
import tomllib

import pytest
from typer.testing import CliRunner

from router.__main__ import app
from router.commands.init import write
from router.settings import ModelUpstream, Settings, SettingsError, Timeouts, UpstreamModel, load


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "router.toml", force=False)
    return tmp_path / "router.toml"


def uncommented(path):
    """The file with every setting uncommented; text comments begin with a space."""
    return re.sub(r"^#(?! |$)", "", path.read_text(), flags=re.MULTILINE)


def test_the_generated_file_changes_no_setting(path):
    assert tomllib.loads(path.read_text()) == {}
    assert load() == Settings()


def test_the_file_contains_exactly_the_settings(path):
    named = tomllib.loads(uncommented(path))
    assert named.keys() == Settings.model_fields.keys()
    assert named["timeouts"].keys() == Timeouts.model_fields.keys()
    assert named["models"]["my-model"].keys() == UpstreamModel.model_fields.keys()
    assert named["models"]["my-model"]["upstreams"][0].keys() == ModelUpstream.model_fields.keys()


def test_the_file_with_every_setting_set_loads(path):
    path.write_text(uncommented(path))
    settings = load()
    assert settings.timeouts == Timeouts()
    assert settings.models["my-model"].usd_per_million_input_tokens == 0.15


def test_the_file_shows_the_default_of_each_setting(path):
    path.write_text(uncommented(path))
    settings = load()
    model_settings = settings.models["my-model"]
    for model, values in (
        (Settings, settings),
        (UpstreamModel, model_settings),
        (ModelUpstream, model_settings.upstreams[0]),
    ):
        for name, field in model.model_fields.items():
            if field.default is not None and name not in ("models", "base_url", "upstreams"):
                assert getattr(values, name) == field.default, name


def test_every_setting_without_a_default_explains_its_absence(path):
    lines = path.read_text().splitlines()
    models = (Settings.model_fields, Timeouts.model_fields, UpstreamModel.model_fields, ModelUpstream.model_fields)
    for fields in models:
        for name, field in fields.items():
            line_numbers = [n for n, line in enumerate(lines) if re.match(rf"#(\[\[models.*)?\[*{name}\b", line)]
            assert line_numbers, name
            for n in line_numbers:
                assert re.match(r"# [A-Z]", lines[n - 1]), f"no word about {name}"
            if field.default is None:
                assert any("efault" in lines[n - 1] for n in line_numbers), name


def test_an_existing_file_is_only_replaced_on_request(path):
    path.write_text('home = "mine"\n')
    with pytest.raises(SettingsError, match="exists; add --force to replace it"):
        write(path, force=False)
    assert path.read_text() == 'home = "mine"\n'
    write(path, force=True)
    assert "#openai_api_key" in path.read_text() and "mine" not in path.read_text()


def test_only_its_owner_can_read_the_file(path):
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    write(path, force=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_unwritable_file_is_a_one_line_error(tmp_path):
    with pytest.raises(SettingsError, match="cannot be written: No such file"):
        write(tmp_path / "nowhere" / "router.toml", force=False)


def test_the_command_names_the_file_and_where_it_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "Wrote every setting with its default to router.toml" in CliRunner().invoke(app, ["init"]).output
    result = CliRunner().invoke(app, ["init", "--path", "other.toml"])
    assert result.exit_code == 0 and "reads only the router.toml" in result.output
    assert isinstance(CliRunner().invoke(app, ["init"]).exception, SettingsError)
