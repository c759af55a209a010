"""The tables come from the migrations, agree with the models, and live beside Optuna's."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import optuna
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text
from sqlalchemy.exc import IntegrityError

from search.errors import NewerDatabaseError
from search.models import Base
from search.store import Store
from search.store_schema import VERSION_TABLE, alembic_config, is_ours, revisions

ROOT = Path(__file__).resolve().parents[2]
OURS = set(Base.metadata.tables)


def _tables(store: Store) -> set[str]:
    with store.reading() as session:
        return set(inspect(session.connection()).get_table_names())


def test_models_and_migrations_agree(empty_database: str) -> None:
    with Store(empty_database) as store, store.reading() as session:
        connection = session.connection()
        options = {"version_table": VERSION_TABLE, "include_object": is_ours}
        context = MigrationContext.configure(connection, opts={**options, "compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
        assert set(inspect(connection).get_table_names()) == OURS | {VERSION_TABLE}


def test_the_comparison_sees_a_missing_column(tmp_path: Path) -> None:
    with Store(f"sqlite:///{tmp_path / 'store.db'}") as store:
        with store.writing() as session:
            session.execute(text("ALTER TABLE job DROP COLUMN error"))
        with store.reading() as session:
            options = {"include_object": is_ours}
            context = MigrationContext.configure(session.connection(), opts=options)
            assert [change[0] for change in compare_metadata(context, Base.metadata)] == [
                "add_column"
            ]


def test_the_file_names_say_what_alembic_knows() -> None:
    scripts = ScriptDirectory.from_config(alembic_config())
    known = [script.revision for script in scripts.walk_revisions()]
    assert list(reversed(known)) == revisions()
    assert scripts.get_current_head() == revisions()[-1]


def test_every_revision_goes_down_and_up_again(empty_database: str) -> None:
    from alembic import command

    with Store(empty_database) as store:
        with store.writing() as session:
            command.downgrade(alembic_config(session.connection()), "base")
        assert _tables(store) == {VERSION_TABLE}
        with store.writing() as session:
            command.upgrade(alembic_config(session.connection()), "head")
        assert _tables(store) == OURS | {VERSION_TABLE}


def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    Store(f"sqlite:///{path}").close()
    before = path.read_bytes()
    with Store(f"sqlite:///{path}") as store:
        assert store.devices.devices() == []
    assert path.read_bytes() == before


NEXT_REVISION = """
import sqlalchemy as sa
from alembic import op
revision, down_revision = "0003", "0002"

def upgrade():
    # "always" copies and drops the table, as SQLite needs for most changes.
    recreate = "always" if op.get_bind().dialect.name == "sqlite" else "never"
    with op.batch_alter_table("device", recreate=recreate) as device:
        device.add_column(sa.Column("vendor", sa.Text(), nullable=False, server_default="any"))
"""


def test_an_older_database_is_upgraded_when_opened_and_keeps_its_rows(
    empty_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert revisions()[-1] == "0002", "move this test's revision to the next number"
    with Store(empty_database) as store:
        store.devices.record_devices({"cpu": ({"isa": "avx2"}, {})})
        store.devices.record_space("cpu", "small", "base", {}, "")
    newer = tmp_path / "migrations"
    shutil.copytree(ROOT / "migrations", newer)
    (newer / "versions" / "v0003_vendor.py").write_text(NEXT_REVISION)
    with monkeypatch.context() as patch:
        patch.setattr("search.store_schema.files", lambda _package: newer)
        with Store(empty_database) as store:
            assert store.devices.device("cpu").config == {"isa": "avx2"}
            assert [row.device for row in store.devices.spaces()] == ["cpu"]
            with store.reading() as session:
                assert session.execute(text("SELECT vendor FROM device")).scalar() == "any"
            with pytest.raises(IntegrityError), store.writing() as session:
                session.execute(text("DELETE FROM device"))
    with pytest.raises(NewerDatabaseError, match="'0003'"):
        Store(empty_database)


def test_a_database_of_a_newer_version_is_refused_untouched(empty_database: str) -> None:
    with Store(empty_database) as store:
        store.devices.record_devices({"cpu": ({}, {})})
        with store.writing() as session:
            session.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
            if empty_database.startswith("sqlite"):
                session.execute(text("PRAGMA user_version = 3"))
    path = Path(empty_database.removeprefix("sqlite:///"))
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(NewerDatabaseError, match=r"'9999'.*Upgrade netcarve.*--db"):
        Store(empty_database)
    if before is not None:
        assert path.read_bytes() == before
        assert [item.name for item in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("first", ["ours", "optuna"])
def test_optuna_lives_in_the_same_database(empty_database: str, first: str) -> None:
    def open_optuna() -> None:
        address = empty_database.replace("postgresql:", "postgresql+psycopg:")
        study = optuna.create_study(
            storage=optuna.storages.RDBStorage(address),
            study_name="study",
            directions=["maximize", "minimize"],
            load_if_exists=True,
        )
        study.add_trial(optuna.trial.create_trial(values=[0.9, 1.5]))

    if first == "optuna":
        open_optuna()
    with Store(empty_database) as store:
        store.devices.record_devices({"cpu": ({}, {})})
        open_optuna()
        shared = optuna.load_study(study_name="study", storage=store.optuna_storage(), sampler=None)
        assert shared.trials[0].values == [0.9, 1.5]
    with Store(empty_database) as store:
        assert OURS | {VERSION_TABLE, "alembic_version", "trials"} <= _tables(store)
        with store.reading() as session:
            options = {"include_object": is_ours}
            context = MigrationContext.configure(session.connection(), opts=options)
            assert compare_metadata(context, Base.metadata) == [], "Optuna's tables are not ours"
    open_optuna()


OPENING = """
import sys, time
import optuna, alembic.command
from search.store import Store
print("ready", flush=True)
sys.stdin.readline()
store = Store(sys.argv[1])
store.optuna_storage()
store.devices.record_devices({"cpu": ({}, {})})
print(len(store.devices.devices()), flush=True)
"""


def test_processes_may_open_an_empty_database_at_once(empty_database: str) -> None:
    command = [sys.executable, "-c", OPENING, empty_database]
    openers = [
        subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    for opener in openers:
        assert opener.stdout is not None
        assert opener.stdout.readline() == "ready\n"
    for opener in openers:
        assert opener.stdin is not None
        opener.stdin.write("\n")
        opener.stdin.flush()
    answers = sorted(opener.communicate(timeout=60)[0] for opener in openers)
    assert answers == ["1\n"] * 3


@pytest.mark.slow
def test_an_installed_wheel_holds_the_revisions(tmp_path: Path) -> None:
    build = "from setuptools import build_meta; import sys; build_meta.build_wheel(sys.argv[1])"
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "LICENSE", "search", "spaces", "migrations"):
        (source / name).symlink_to(ROOT / name)
    (source / "README.md").touch()
    subprocess.run(
        [sys.executable, "-c", build, str(tmp_path / "dist")], cwd=source, check=True, timeout=120
    )
    installed = tmp_path / "installed"
    zipfile.ZipFile(next((tmp_path / "dist").glob("*.whl"))).extractall(installed)
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import search.store\n"
        "assert search.__file__.startswith(sys.argv[1])\n"
        "search.store.Store(sys.argv[2]).devices.record_devices({'cpu': ({}, {})})\n"
    )
    database = tmp_path / "store.db"
    subprocess.run(
        [sys.executable, "-c", program, str(installed), f"sqlite:///{database}"],
        cwd=tmp_path,
        check=True,
        timeout=120,
    )
    assert database.is_file()
    assert (installed / "migrations" / "script.py.mako").is_file()
