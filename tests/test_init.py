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
    """The file with every setting set; a comment in words begins with a space."""
    return re.sub(r"^#(?! |$)", "", path.read_text(), flags=re.MULTILINE)


def test_the_file_as_it_is_written_changes_nothing(path):
    assert tomllib.loads(path.read_text()) == {}
    assert load() == Settings()


def test_every_setting_is_in_the_file_and_nothing_else(path):
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


def test_what_stands_there_is_the_default_where_there_is_one(path):
    path.write_text(uncommented(path))
    settings = load()
    mine = settings.models["my-model"]
    for model, values in ((Settings, settings), (UpstreamModel, mine), (ModelUpstream, mine.upstreams[0])):
        for name, field in model.model_fields.items():
            if field.default is not None and name not in ("models", "base_url", "upstreams"):
                assert getattr(values, name) == field.default, name


def test_every_setting_without_a_default_says_what_happens_without_it(path):
    lines = path.read_text().splitlines()
    models = (Settings.model_fields, Timeouts.model_fields, UpstreamModel.model_fields, ModelUpstream.model_fields)
    for fields in models:
        for name, field in fields.items():
            at = [n for n, line in enumerate(lines) if re.match(rf"#(\[\[models.*)?\[*{name}\b", line)]
            assert at, name
            for n in at:
                assert re.match(r"# [A-Z]", lines[n - 1]), f"no word about {name}"
            if field.default is None:
                assert any("efault" in lines[n - 1] for n in at), name


def test_a_file_that_exists_is_kept_unless_it_is_to_be_replaced(path):
    path.write_text('home = "mine"\n')
    with pytest.raises(SettingsError, match="exists; add --force to replace it"):
        write(path, force=False)
    assert path.read_text() == 'home = "mine"\n'
    write(path, force=True)
    assert "#openai_api_key" in path.read_text() and "mine" not in path.read_text()


def test_only_its_owner_can_read_the_file_since_it_may_hold_keys(path):
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    write(path, force=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(SettingsError, match="cannot be written: No such file"):
        write(tmp_path / "nowhere" / "router.toml", force=False)


def test_the_command_says_what_it_wrote_and_where_it_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "Wrote every setting with its default to router.toml" in CliRunner().invoke(app, ["init"]).output
    result = CliRunner().invoke(app, ["init", "--path", "other.toml"])
    assert result.exit_code == 0 and "reads only the router.toml" in result.output
    assert isinstance(CliRunner().invoke(app, ["init"]).exception, SettingsError)
