"""`mar lock`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ...errors import InputError, StageError
from ..options import CacheOption, JsonOption, OfflineOption, open_store


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
    from ...builder.build import Build, Options
    from ...builder.failures import explained
    from ...builder.stages.locking import locked
    from ...config import build_config as config
    from ...files.atomic import write_atomic
    from ...model import lock as locks
    from ...sources.task import teller

    store = open_store(cache)
    loaded = config.load_all(configs, config.Overrides(tell=teller(store, offline)))
    found: list[dict[str, Any]] = []
    texts: dict[Path, str] = {}
    with store.in_use():
        for one in loaded:
            assert one.path is not None
            path = locks.path_of(one.path)
            before = _before(one.path, check)
            build = Build(config=one, store=store, options=Options(offline=offline))
            with explained(build, "lock"):
                now = locked(build)
            changes = ["it is not there"] if before is None else before.differences(now)
            found.append({"config": str(one.path), "lock": str(path), "files": len(now.files), "changes": changes})
            if before is None or before.to_json() != now.to_json():
                texts[path] = now.to_json()
    for path, text in {} if check else texts.items():
        try:
            write_atomic(path, text)
        except OSError as error:
            raise StageError(
                f"{path} cannot be written: {error.strerror}.", fix="Make room, or its folder writable."
            ) from None
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


def _before(config: Path, check: bool) -> Any:
    """The lock that is there. One that cannot be read is as good as none where it is to be written anew."""
    from ...model.lock import read

    try:
        return read(config)
    except InputError:
        if check:
            raise
        return None
