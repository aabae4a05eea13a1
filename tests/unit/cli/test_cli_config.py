"""`llamalite config` through the real command line."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from cli_process import llamalite_here as llamalite
from support.gguf_models import write_llama

from llamalite.cli.config import main
from llamalite.config import file
from llamalite.errors import InvalidParameter


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLAMALITE_HOME", str(tmp_path))
    monkeypatch.delenv("LLAMALITE_CONFIG", raising=False)
    return tmp_path


def config(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return llamalite("config", *arguments, env=env)


def answer(*arguments: str, **env: str) -> str:
    done = config(*arguments, **env)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_value_goes_in_is_shown_with_its_origin_and_comes_out(home: Path) -> None:
    path = answer("path").strip()
    assert path == str(home / "config.toml")
    done = config("set", "n_gpu_layers", "-1")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"n_gpu_layers = -1 in {path}\n"
    shown = json.loads(answer("show", "--json", LLAMALITE_SAMPLING_TOP_K="7"))
    assert shown["n_gpu_layers"] == {"value": -1, "origin": f"file {path}"}
    assert shown["sampling.top_k"]["origin"] == "environment LLAMALITE_SAMPLING_TOP_K"
    assert shown["server.port"] == {"value": 8080, "origin": "default"}
    assert answer("get", "n_gpu_layers") == "-1\n"
    done = config("unset", "n_gpu_layers", LLAMALITE_N_GPU_LAYERS="2")
    assert "no longer set" in done.stderr
    assert "LLAMALITE_N_GPU_LAYERS is set, and wins" in done.stderr
    assert answer("get", "n_gpu_layers") == "\n"


def test_all_that_is_said_of_a_model_can_be_unset(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["set", "models.qwen3:8b.n_ctx", "5"])
    for _ in range(2):
        assert main(["unset", "models.qwen3:8b"]) == 0
    said = capsys.readouterr().err.splitlines()
    path = home / "config.toml"
    assert said[1:] == [
        f"models.qwen3:8b is no longer set in {path}",
        f"models.qwen3:8b isn't set in {path}",
    ]
    assert path.read_text().strip() == ""


def test_the_folder_for_models_is_shown_as_it_is(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["get", "models_dir"])
    main(["show", "--json"])
    first, shown = capsys.readouterr().out.split("\n", 1)
    assert first == str(home / "models")
    assert json.loads(shown)["models_dir"] == {"value": first, "origin": "default"}


def test_keys_of_clients_are_not_shown(home: Path) -> None:
    done = config("set", "server.api_keys", '["sk-1", "sk-2"]')
    assert "sk-" not in done.stderr
    shown = answer("show")
    assert "sk-" not in shown
    assert '["***", "***"]' in shown
    assert json.loads(answer("get", "server.api_keys")) == ["sk-1", "sk-2"]


def test_init_writes_once_and_set_edits_what_it_wrote(home: Path) -> None:
    assert config("init").returncode == 0
    done = config("init")
    assert done.returncode == 2
    assert "--force" in done.stderr
    assert config("set", "models.owner/repo.v1:Q4_0.sampling.seed", "-1").returncode == 0
    said = file.read_config()
    assert said["models"]["owner/repo.v1:Q4_0"]["sampling"] == {"seed": -1}
    assert config("init", "--force").returncode == 0
    assert "models" not in file.read_config()


def test_what_is_wrong_is_one_line(home: Path) -> None:
    for arguments, reason in (
        (["set", "ctx_size", "5"], "there is no setting 'ctx_size': did you mean n_ctx?"),
        (["set", "n_ctx", "many"], "n_ctx must be a whole number, not 'many'"),
        (["get", "aliases.x"], "aliases.x isn't set"),
        (["set", "n_ctx"], "wrong arguments"),
    ):
        done = config(*arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1
        assert reason in done.stderr
    assert not list(home.iterdir())


def test_a_key_may_be_quoted_as_in_the_file(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["set", 'models."a.b".n_ctx', "5"])
    assert file.read_config() == {"models": {"a.b": {"n_ctx": 5}}}
    main(["get", "models.'a.b'.n_ctx"])
    assert capsys.readouterr().out == "5\n"
    main(["unset", 'models."a.b".n_ctx'])
    assert file.read_config() == {}


def test_an_alias_takes_no_models_name(home: Path) -> None:
    (home / "models").mkdir()
    write_llama(home / "models" / "st.gguf")
    with pytest.raises(InvalidParameter, match="'ST' is the name of a model here"):
        main(["set", "aliases.ST", "smollm2"])
    assert file.read_config() == {}


def test_a_faulty_file_can_be_mended(home: Path) -> None:
    (home / "config.toml").write_text("# mine\nctx_size = 5\nn_ctx = 6\n")
    done = config("show")
    assert done.returncode == 2
    assert "did you mean n_ctx?" in done.stderr
    done = config("set", "n_batch", "7")
    assert "note: the configuration is still faulty" in done.stderr
    assert config("unset", "ctx_size").returncode == 0
    assert answer("get", "n_ctx") == "6\n"
