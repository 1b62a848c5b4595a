"""`mar lock`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from . import build_cli
from .build_cli import OfflineOption
from .cache_cli import CacheOption, JsonOption
from .cache_cli import store as open_store
from .errors import InputError


def lock(
    configs: Annotated[list[Path], typer.Argument(help="Config files (YAML).", show_default=False)],
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; fail if a lock is not of what the model is now.")
    ] = False,
    cache: CacheOption = None,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write down which files a config's model is made of now: CONFIG.lock, by which every later build takes them."""
    from . import config
    from . import lock as locks
    from .model_task import teller
    from .notes import write_atomic
    from .stages.download import locked

    store = open_store(cache)
    loaded = config.load_all(configs, config.Overrides(tell=teller(store, offline)))
    found: list[dict[str, Any]] = []
    with store.in_use():
        for one in build_cli.builds(loaded, store, Path("build"), offline):
            assert one.config.path is not None
            path, before, one.lock = locks.path_of(one.config.path), locks.read(one.config.path), None
            now = locked(one)
            told = {"config": str(one.config.path), "lock": str(path), "files": len(now.files)}
            found.append({**told, "changes": ["it is not there"] if before is None else before.differences(now)})
            if not check and (before is None or before.to_json() != now.to_json()):
                write_atomic(path, now.to_json())
    if as_json:
        print(json.dumps({"locks": found}))
    else:
        for each in found:
            state = "differs" if check and each["changes"] else "is as it should be" if check else "is written"
            print(f"{each['lock']} {state} ({each['files']} files)")
            for change in each["changes"]:
                print(f"  {change}")
    wrong = [each for each in found if each["changes"]]
    if check and wrong:
        raise InputError(
            f"{wrong[0]['lock']} is not of what the model is now: {'; '.join(wrong[0]['changes'][:3])}.",
            fix=f"If that is meant: mar lock {wrong[0]['config']}",
        )
