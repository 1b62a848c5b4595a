"""`mar lock`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from ...errors import InputError, StageError
from ..options import CacheOption, JsonOption, OfflineOption, example, open_store


@example("mar lock my-model.yaml", "mar lock --check my-model.yaml")
def lock(
    configs: Annotated[list[Path], typer.Argument(help="Config files (YAML).", show_default=False)],
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; fail if the model differs from its lock.")
    ] = False,
    cache: CacheOption = None,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
) -> None:
    """Pin a config's model: write its files' digests to CONFIG.lock, which later builds follow."""
    from ...builder import session
    from ...config import build_config as config
    from ...files.atomic import write_atomic
    from ...model import lock as locks
    from ...sources.task import task_lookup

    store = open_store(cache)
    loaded = config.load_all(configs, config.Overrides(lookup=task_lookup(store, offline)))
    results: list[dict[str, Any]] = []
    texts: dict[Path, str] = {}
    for one in loaded:
        assert one.path is not None
        path = locks.path_of(one.path)
        before = _before(one.path, check)
        now = session.lock(one, store, offline=offline)
        changes = ["it does not exist"] if before is None else before.differences(now)
        results.append({"config": str(one.path), "lock": str(path), "files": len(now.files), "changes": changes})
        if before is None or before.to_json() != now.to_json():
            texts[path] = now.to_json()
    for path, text in {} if check else texts.items():
        try:
            write_atomic(path, text)
        except OSError as error:
            raise StageError(
                f"{path} cannot be written: {error.strerror}.", fix="Free some space, or make its folder writable."
            ) from None
    if as_json:
        print(json.dumps({"locks": results}))
    else:
        for result in results:
            state = "differs" if check and result["changes"] else "is up to date" if check else "is written"
            print(f"{result['lock']} {state} ({result['files']} files)")
            for change in result["changes"]:
                print(f"  {change}")
    stale = [result for result in results if result["changes"]]
    if check and stale:
        if not Path(stale[0]["lock"]).exists():
            raise InputError(
                f"{stale[0]['config']} has no lock.",
                fix=f"Write it, and keep it beside the config: mar lock {shlex.quote(stale[0]['config'])}",
            )
        raise InputError(
            f"{stale[0]['lock']} differs from the model: {'; '.join(stale[0]['changes'][:3])}.",
            fix=f"If the change is intended: mar lock {shlex.quote(stale[0]['config'])}",
        )


def _before(config: Path, check: bool) -> Any:
    """The existing lock of a config, or None. An unreadable one is an error with `check`; else it is overwritten."""
    from ...model.lock import read

    try:
        return read(config)
    except InputError:
        if check:
            raise
        return None
