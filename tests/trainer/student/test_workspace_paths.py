"""Project paths: relative for the student, absolute for the tools, and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.student.workspace_paths import absolute_path, to_absolute, to_relative

ROOT = "/home/me/grid-project"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/me/grid-project/src/app.py", "src/app.py"),
        ("/home/me/grid-project", "."),
        ("cd /home/me/grid-project && cat /home/me/grid-project/a.py", "cd . && cat a.py"),
        ('sqlite3 "/home/me/grid-project/grid.db" .schema', 'sqlite3 "grid.db" .schema'),
        ("--out=/home/me/grid-project/build", "--out=build"),
        ("ls /home/me/grid-project/", "ls ./"),
        ("ls /home/me/grid-project/*.py", "ls *.py"),
        ("rm /home/me/grid-project/-rf", "rm ./-rf"),
        ("cat /home/me/grid-project//a.py", "cat a.py"),
        ("It is in /home/me/grid-project.", "It is in ./."),
        ("/home/me/grid-project.bak/a.py", "/home/me/grid-project.bak/a.py"),
        ("/home/me/grid-project-2/a.py", "/home/me/grid-project-2/a.py"),
        ("/backup/home/me/grid-project/a.py", "/backup/home/me/grid-project/a.py"),
        ("/home/me/other.txt", "/home/me/other.txt"),
        ("/home/me/grid-project/a.py:12: def f()", "a.py:12: def f()"),
    ],
)
def test_only_whole_path_prefixes_become_relative(text: str, expected: str) -> None:
    assert to_relative(text, ROOT) == expected


@pytest.mark.parametrize("root", [None, "", "/", "relative/root", "C:\\"])
def test_a_root_that_is_no_project_folder_changes_nothing(root: str | None) -> None:
    assert to_relative({"file_path": "/a/b", "n": 1}, root) == {"file_path": "/a/b", "n": 1}
    assert to_absolute({"file_path": "b", "n": 1}, root) == {"file_path": "b", "n": 1}


def test_a_trailing_slash_of_the_root_makes_no_difference() -> None:
    assert to_relative(f"{ROOT}/a.py", ROOT + "/") == "a.py"
    assert to_absolute({"path": "a.py"}, ROOT + "/") == {"path": f"{ROOT}/a.py"}


def test_windows_roots_are_understood_with_either_separator() -> None:
    root = "C:\\Users\\me\\grid"
    assert to_relative("C:\\Users\\me\\grid\\src\\a.py", root) == "src\\a.py"
    assert to_absolute({"file_path": "src\\a.py"}, root) == {"file_path": "C:\\Users\\me\\grid\\src\\a.py"}


def test_keys_and_values_that_are_no_text_stay() -> None:
    value = {f"{ROOT}/key": [1, None, True, {"path": f"{ROOT}/a"}]}
    assert to_relative(value, ROOT) == {f"{ROOT}/key": [1, None, True, {"path": "a"}]}


def test_only_arguments_that_hold_one_path_become_absolute() -> None:
    arguments = {"file_path": "src/a.py", "old_string": "src/a.py", "edits": [{"path": "."}]}
    assert to_absolute(arguments, ROOT) == {
        "file_path": f"{ROOT}/src/a.py",
        "old_string": "src/a.py",
        "edits": [{"path": ROOT}],
    }
    assert to_absolute("src/a.py", ROOT) == "src/a.py"
    assert to_absolute({"path": "/etc/hosts"}, ROOT) == {"path": "/etc/hosts"}
    assert to_absolute({"path": "~/notes"}, ROOT) == {"path": "~/notes"}


name = st.text("abcXYZ019_. é@+", min_size=1, max_size=8).filter(
    lambda part: part == part.strip() and set(part) != {"."}
)
paths = st.lists(name, min_size=1, max_size=4).map("/".join)
roots = st.lists(st.text("abcXYZ019_.-", min_size=1, max_size=8).filter(lambda p: set(p) != {"."}), min_size=1).map(
    lambda parts: "/" + "/".join(parts)
)


@given(path=paths, root=roots)
def test_absolute_undoes_relative_on_path_arguments(path: str, root: str) -> None:
    absolute = {"file_path": f"{root}/{path}", "nested": [{"path": root}]}
    assert to_absolute(to_relative(absolute, root), root) == absolute
    relative = {"file_path": path, "nested": [{"path": "."}]}
    assert to_relative(to_absolute(relative, root), root) == relative


@given(text=st.text(), path=paths, root=roots)
def test_relative_text_stays_relative(text: str, path: str, root: str) -> None:
    once = to_relative(f"{text} {root}/{path} {text}", root)
    assert to_relative(once, root) == once
    assert f" {root}/{path} " not in once


@given(path=paths, root=roots)
def test_a_dotted_path_is_the_same_path(path: str, root: str) -> None:
    assert absolute_path(f"./{path}", root) == absolute_path(path, root) == f"{root}/{path}"
