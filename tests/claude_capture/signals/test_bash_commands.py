"""What a Bash command does, part by part."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claude_capture.signals.bash_commands import classify_command, command_words


@pytest.mark.parametrize(
    ("command", "purpose"),
    [
        ("cat notes.txt", "read"),
        ("cd src && sed -n '1,40p' main.py", "read"),
        ("cat a.log 2>/dev/null | head -20", "read"),
        ("grep -rn 'def load' src | wc -l", "search"),
        ("rg load --glob '*.py'", "search"),
        ("find . -name '*.toml' | sort", "list"),
        ("ls -la", "list"),
        ("git -C repo log --oneline -5", "history"),
        ("git diff HEAD~1 > /dev/null", "history"),
        ('sqlite3 grid.db "SELECT * FROM feeders WHERE id > 3"', "database"),
        ("sqlite3 grid.db .schema", "database"),
        ("python3 -c \"import sqlite3; print(sqlite3.connect('g.db').execute('select 1 from t'))\"", "database"),
        ("curl -s https://example.org/api", "web"),
        ("timeout 5 cat x.txt", "read"),
    ],
)
def test_commands_that_only_read(command: str, purpose: str) -> None:
    judged = classify_command(command)
    assert judged.read_only
    assert purpose in judged.purposes
    assert not judged.changes_files


@pytest.mark.parametrize(
    "command",
    [
        "echo limit=3 > settings.ini",
        "sed -i 's/3/4/' settings.ini",
        "cat <<'EOF' > notes.md\nonly text\nEOF",
        "ls && rm -r build",
        "git checkout main -- a.py",
        "sqlite3 grid.db 'UPDATE feeders SET kv = 11 WHERE id = 2'",
        "find . -name '*.pyc' -delete",
        "python3 -c \"open('a.txt', 'w').write('x')\"",
        "grep x a.txt | tee b.txt",
        "touch /home/dev/plan.txt",
    ],
)
def test_commands_that_change_files(command: str) -> None:
    judged = classify_command(command)
    assert judged.changes_files
    assert not judged.read_only


@pytest.mark.parametrize(
    ("command", "purpose"),
    [
        ("uv run pytest -x tests", "test"),
        ("python -m pytest", "test"),
        ("(source .venv/bin/activate && pytest)", "test"),
        ("npm test", "test"),
        ("npm run lint", "check"),
        ("ruff check src", "check"),
        ("npx tsc --noEmit", "check"),
        ("pip install requests", "install"),
        ("git commit -m 'only docs'", "git"),
        ("gh pr create", "remote"),
        ("./serve.sh", "run"),
    ],
)
def test_commands_that_run_something(command: str, purpose: str) -> None:
    judged = classify_command(command)
    assert purpose in judged.purposes
    assert not judged.read_only
    assert not judged.changes_files


def test_redirects_to_the_void_and_to_temporary_files_change_nothing() -> None:
    assert classify_command("grep x a.txt > /tmp/hits.txt 2>&1").read_only


def test_the_program_is_the_first_that_works() -> None:
    assert classify_command("cd app && FOO=1 uv run ./bin/check.py --all").program == "check.py"


def test_two_readers_of_one_file_have_the_same_target() -> None:
    assert (
        classify_command("head -5 src/a.py").target == classify_command("cat src/a.py | tail -3").target == "src/a.py"
    )


def test_a_read_after_a_write_is_no_longer_read_only() -> None:
    assert not classify_command("$(rm -f x.txt); cat y.txt").read_only


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab c$(){}'\"`|&;<>\\\n-./1=", max_size=80))
def test_no_command_line_breaks_the_parser(command: str) -> None:
    judged = classify_command(command)
    assert not (judged.read_only and judged.changes_files)
    assert all(word for word in command_words(command))
