"""What the processes get that load and serve models: nothing that a builder's environment happens to hold."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args, get_type_hints

import psutil
import pytest

from mar_pipeline import __main__ as main
from mar_pipeline import errors
from mar_pipeline.errors import InputError
from mar_pipeline.host import doctor, environment, process
from mar_pipeline.host import java as runtime
from mar_pipeline.model.address import ModelSource
from mar_pipeline.serving.properties import config_properties, read_properties
from mar_pipeline.sources import KINDS, redacted
from mar_pipeline.sources.objects.services import SERVICES
from mar_pipeline.workers import client
from tests.support import ROOT

CREDENTIALS = """
    HF_TOKEN HUGGING_FACE_HUB_TOKEN HUGGINGFACE_TOKEN HF_OIDC_RESOURCE HF_OIDC_ID_TOKEN OAUTH_CLIENT_SECRET
    AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AWS_SECURITY_TOKEN AWS_CONTAINER_AUTHORIZATION_TOKEN
    AWS_BEARER_TOKEN_BEDROCK AWS_WEB_IDENTITY_TOKEN_FILE AWS_PROFILE AWS_SHARED_CREDENTIALS_FILE AWS_ENDPOINT_URL
    AZURE_STORAGE_ACCOUNT_KEY AZURE_STORAGE_KEY AZURE_STORAGE_CREDENTIAL AZURE_STORAGE_CONNECTION_STRING
    AZURE_STORAGE_SAS_TOKEN AZURE_CLIENT_SECRET AZURE_PASSWORD AZURE_CLIENT_CERTIFICATE_PASSWORD
    GOOGLE_APPLICATION_CREDENTIALS GOOGLE_API_KEY CLOUDSDK_AUTH_ACCESS_TOKEN FSSPEC_S3_SECRET FSSPEC_GS_TOKEN
    MLFLOW_TRACKING_URI MLFLOW_REGISTRY_URI MLFLOW_TRACKING_USERNAME MLFLOW_TRACKING_PASSWORD MLFLOW_TRACKING_TOKEN
    MLFLOW_TRACKING_AUTH MLFLOW_S3_ENDPOINT_URL DATABRICKS_HOST DATABRICKS_TOKEN DATABRICKS_CLIENT_SECRET
    GITHUB_TOKEN GH_TOKEN GITLAB_TOKEN CI_JOB_TOKEN ACTIONS_ID_TOKEN_REQUEST_TOKEN NPM_TOKEN PYPI_TOKEN TWINE_PASSWORD
    OPENAI_API_KEY WANDB_API_KEY NVIDIA_API_KEY NGC_API_KEY TS_AUTHKEY VAULT_TOKEN PGPASSWORD DATABASE_URL
    SSH_AUTH_SOCK GPG_AGENT_INFO KUBECONFIG DOCKER_AUTH_CONFIG GIT_ASKPASS SSH_ASKPASS NETRC
    HTTPS_PROXY https_proxy HTTP_PROXY ALL_PROXY HF_ENDPOINT PIP_INDEX_URL PIP_EXTRA_INDEX_URL UV_INDEX_URL
    JAVA_TOOL_OPTIONS _JAVA_OPTIONS TORCH_HUB_TOKEN TORCHINDUCTOR_REDIS_URL NEURON_API_KEY CUDA_REGISTRY_PASSWORD
    LC_DB_PWD TORCH_hub_token NEURON_Api_Key
    PYTHON_KEYRING_BACKEND HF_TOKEN_PATH_ XHOME PATH_ MODEL_SIGNING_KEY_PASSWORD A_NAME_THAT_NOBODY_KNOWS
""".split()  # noqa: SIM905

DECLARED = {name for kind in KINDS.values() for name in kind.credentials}

NEEDED = """
    PATH HOME USER LANG LC_ALL TZ TMPDIR LD_LIBRARY_PATH LD_PRELOAD JAVA_HOME OMP_NUM_THREADS GOMP_SPINCOUNT
    KMP_AFFINITY MKL_NUM_THREADS OPENBLAS_NUM_THREADS ONEDNN_PRIMITIVE_CACHE_CAPACITY DNNL_VERBOSE MALLOC_ARENA_MAX
    TORCH_HOME PYTORCH_CUDA_ALLOC_CONF TORCHINDUCTOR_CACHE_DIR CUDA_VISIBLE_DEVICES NVIDIA_VISIBLE_DEVICES
    NEURON_RT_NUM_CORES NEURON_RT_VISIBLE_CORES NEURON_CC_FLAGS XLA_FLAGS HF_HOME HF_HUB_CACHE TRANSFORMERS_CACHE
    XDG_CACHE_HOME PYTHONHASHSEED PYTHONDONTWRITEBYTECODE TOKENIZERS_PARALLELISM SSL_CERT_FILE
    PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION
""".split()  # noqa: SIM905


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A builder's environment, which holds a secret under each of the names."""
    for name in CREDENTIALS:
        monkeypatch.setenv(name, "a secret")
    return monkeypatch


@pytest.mark.parametrize("made", [client.environment, process.environment, environment.environment])
def test_what_is_started_gets_no_variable_that_is_not_on_the_list(shell: pytest.MonkeyPatch, made: object) -> None:
    for name in NEEDED:
        shell.setenv(name, os.environ.get(name) or "/something")
    assert callable(made)
    got = made()
    assert "a secret" not in got.values()
    assert not set(CREDENTIALS) & got.keys()
    assert {name: got.get(name) for name in NEEDED if name != "TOKENIZERS_PARALLELISM"} == {
        name: os.environ[name] for name in NEEDED if name != "TOKENIZERS_PARALLELISM"
    }
    assert got["HF_HUB_OFFLINE"] == "1"


@pytest.mark.usefixtures("shell")
def test_workers_of_any_torchserve_get_the_same_variables() -> None:
    held_back = re.compile(read_properties(config_properties([]))["blacklist_env_vars"])
    assert [name for name in CREDENTIALS if not held_back.fullmatch(name)] == []
    assert [name for name in NEEDED if held_back.fullmatch(name)] == []
    # What TorchServe itself hands on (ConfigManager.getBackendConfiguration, EnvironmentUtils).
    assert not [name for name in ("TS_DECODE_INPUT_REQUEST", "LOG_LOCATION", "PYTHONPATH") if held_back.fullmatch(name)]


def test_java_reads_the_expression_as_python_does(tmp_path: Path) -> None:
    names = [*CREDENTIALS, *NEEDED, "PATH\nX", "A\nPATH"]
    properties = tmp_path / "config.properties"
    properties.write_text(config_properties([], passed=["MY_SETTING"]))
    (tmp_path / "Held.java").write_text(
        """
        import java.nio.file.*; import java.util.*; import java.util.regex.Pattern;
        public class Held {
            public static void main(String[] given) throws Exception {
                Properties read = new Properties();
                read.load(Files.newBufferedReader(Paths.get(given[0])));
                Pattern pattern = Pattern.compile(read.getProperty("blacklist_env_vars"));
                for (int i = 1; i < given.length; i++) System.out.println(pattern.matcher(given[i]).matches());
            }
        }
        """
    )
    java = runtime.find_java()
    if not (java.resolve().parent / "javac").exists():
        pytest.skip("a whole JDK compiles the class")
    done = subprocess.run(
        [java, tmp_path / "Held.java", properties, *names, "MY_SETTING"], capture_output=True, text=True, check=True
    )
    found = [line == "true" for line in done.stdout.splitlines()]
    pattern = re.compile(environment.withheld(["MY_SETTING"]))
    assert found == [bool(pattern.fullmatch(name)) for name in [*names, "MY_SETTING"]]
    assert found[-1] is False


def test_a_value_with_a_password_in_its_address_is_not_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEURON_COMPILE_CACHE_URL", "https://somebody:password@host/cache")
    assert "NEURON_COMPILE_CACHE_URL" not in environment.environment()
    monkeypatch.setenv("NEURON_COMPILE_CACHE_URL", "s3://bucket/cache")
    assert environment.environment()["NEURON_COMPILE_CACHE_URL"] == "s3://bucket/cache"


def test_a_worker_keeps_the_docstrings_that_transformers_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONOPTIMIZE", "2")
    done = subprocess.run(
        [sys.executable, "-c", "def f():\n  'said'\nprint(f.__doc__)"],
        env=environment.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "said\n"


def test_a_handlers_own_variables_are_passed_by_their_exact_names(shell: pytest.MonkeyPatch) -> None:
    shell.setenv("MY_SETTING", "https://me:password@host")
    shell.setenv("MY_SETTING_2", "not named")
    shell.setenv("MAR_PASS_ENV", " MY_SETTING, OPENAI_API_KEY,NOT_SET ,")
    for got in (client.environment(), process.environment()):
        assert got["MY_SETTING"] == "https://me:password@host"
        assert [name for name, value in got.items() if value == "a secret"] == ["OPENAI_API_KEY"]
        assert not {"MY_SETTING_2", "NOT_SET", "MAR_PASS_ENV"} & got.keys()
    for wrong in ("MY_*", "A=B", "A B", "-"):
        shell.setenv("MAR_PASS_ENV", wrong)
        with pytest.raises(InputError, match="MAR_PASS_ENV"):
            environment.environment()


@pytest.mark.usefixtures("shell")
def test_programs_that_are_asked_for_versions_get_no_more(tmp_path: Path) -> None:
    said = doctor.run([sys.executable, "-c", "import os; print(os.environ)"], 30.0)
    assert said is not None
    assert said[0] == 0
    assert "a secret" not in said[1]
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\nenv > {tmp_path}/env\necho 'openjdk version \"21.0.1\"'\n")
    java.chmod(0o755)
    assert runtime.java_version(java) == 21
    assert "a secret" not in (tmp_path / "env").read_text()


@pytest.mark.parametrize("line", ["5", "4"])
def test_the_token_of_the_login_is_not_found(tmp_path: Path, line: str) -> None:
    older = Path(sys.prefix) / "older"
    if line == "4" and not older.is_dir():
        pytest.skip("transformers 4 is not beside this environment: make test")
    (tmp_path / "token").write_text("hf_of_the_file")
    (tmp_path / "stored_tokens").write_text("[me]\nhf_token = hf_of_the_file\n")
    code = (
        "import huggingface_hub as hub; from huggingface_hub.utils import _auth\n"
        "print(hub.get_token(), getattr(_auth, 'get_stored_tokens')(), hub.__version__)"
    )
    paths = {"PYTHONPATH": str(older)} if line == "4" else {}
    for env, found in (({**os.environ, "HF_TOKEN": ""}, True), (environment.environment(), False)):
        env = {**env, **paths, "HF_HOME": str(tmp_path)}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        assert ("hf_of_the_file" in done.stdout) is found
        assert done.stdout.split()[-1].startswith("0." if line == "4" else ("1.", "2."))


def test_what_mar_was_started_with_cannot_be_read_from_outside() -> None:
    code = """
import os, subprocess, sys
from mar_pipeline import __main__; from mar_pipeline.host import environment
look = [sys.executable, "-c", "import os; print(open(f'/proc/{os.getppid()}/environ').read())"]
def seen():
    return "planted" in subprocess.run(look, env={}, capture_output=True, text=True).stdout
before = seen()
__main__.run = lambda: 0
try:
    __main__.main()
except SystemExit:
    pass
kept = subprocess.run(["env"], capture_output=True, text=True).stdout
print(before, seen(), os.environ["HF_TOKEN"], "HF_TOKEN=planted" in kept, os.getenv("PATH") == sys.argv[1])
"""
    env = {**os.environ, "HF_TOKEN": "planted", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, env["PATH"]], env=env, capture_output=True, text=True, check=True, cwd="/"
    )
    assert done.stdout.split() == ["True", "False", "planted", "True", "True"]


def test_the_list_in_the_documents_is_the_one_that_holds() -> None:
    text = (ROOT / "docs" / "reference" / "environment-variables.md").read_text(encoding="utf-8")
    assert [name for name in environment.NAMES if f"`{name}`" not in text] == []
    assert [prefix for prefix in environment.PREFIXES if f"`{prefix}*`" not in text] == []


def test_every_source_declares_its_credentials_and_none_of_them_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(KINDS) == set(get_args(get_type_hints(ModelSource)["kind"]))
    assert all(isinstance(kind.credentials, tuple) for kind in KINDS.values())
    assert all(service.credentials for service in SERVICES.values())
    assert {"HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "AZURE_STORAGE_ACCOUNT_KEY", "MLFLOW_TRACKING_TOKEN"} <= DECLARED
    assert [name for name in DECLARED if re.fullmatch(environment.allowed(), name)] == []
    for name in DECLARED:
        monkeypatch.setenv(name, "a secret")
    assert not DECLARED & environment.environment().keys()


def test_a_traceback_shows_no_secret(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG")
    monkeypatch.setenv("FSSPEC_GS_TOKEN", "anon")
    assert redacted("anon wJalrXUtnFEMI/K7MDENG") == "anon $AWS_SECRET_ACCESS_KEY"

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("signed with wJalrXUtnFEMI/K7MDENG")

    monkeypatch.setattr(main, "app", fail)
    assert main.run([]) == errors.UNEXPECTED
    shown = capsys.readouterr().err
    assert "RuntimeError: signed with $AWS_SECRET_ACCESS_KEY" in shown
    assert "wJalr" not in shown


def test_a_process_group_has_its_living_processes_and_no_others() -> None:
    leader = subprocess.Popen(["sh", "-c", "sleep 60 & echo; wait"], stdout=subprocess.PIPE, start_new_session=True)
    assert leader.stdout is not None
    with leader:
        leader.stdout.readline()
        members = process.group_members(leader.pid)
        assert leader.pid in members
        assert len(members) == 2
        assert os.getpid() not in members
        os.killpg(leader.pid, signal.SIGKILL)
        while process.group_members(leader.pid):  # until then it is no zombie
            time.sleep(0.01)
        assert leader.pid in psutil.pids()
