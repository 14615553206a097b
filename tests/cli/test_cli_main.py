"""How a run of `deepspec` begins and ends: help, unknown commands, mistakes, interruptions, pipes."""

from __future__ import annotations

import re
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

import deepspec
from deepspec.errors import UserError
from deepspec_cli import main as door
from deepspec_cli.main import COMMANDS, main


def run(*arguments, **options):
    return CliRunner().invoke(main, list(arguments), **options)


def test_alone_it_shows_its_commands():
    result = run()
    assert result.exit_code == 0
    for name in COMMANDS:
        assert re.search(rf"^  {name} ", result.output, re.MULTILINE)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name):
    result = run(name, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.output


@pytest.mark.parametrize("name", ["fit", "models", "fake"])
def test_help_shows_examples_and_explains_every_option(name):
    command = COMMANDS[name]
    assert f"deepspec {name}" in command.help
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, option.name


def test_version():
    assert run("--version").output.strip() == f"deepspec, version {deepspec.__version__}"


def test_an_unknown_command_gets_a_hint():
    result = run("fti")
    assert result.exit_code == 2
    assert result.stderr == "deepspec: unknown command 'fti'; did you mean fit or train?\n"
    assert result.stdout == ""


@pytest.mark.parametrize("arguments", [["fit", "--starts", "many"], ["fit", "--nope"], ["fake", "--model", "powerlaw"]])
def test_usage_mistakes_are_one_line(arguments):
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert f"`deepspec {arguments[0]} --help`" in result.stderr


@pytest.fixture
def one_command(monkeypatch):
    """A `deepspec do` that does what the test says."""

    def use(function):
        monkeypatch.setattr(door, "COMMANDS", {"do": click.command("do")(function)})

    return use


def test_a_users_mistake_is_one_line(one_command):
    def wrong():
        raise UserError("it cannot\nbe done", "x.pha", "do something else")

    one_command(wrong)
    result = run("do")
    assert result.exit_code == 2
    assert result.stderr == "deepspec: x.pha: it cannot be done; do something else.\n"


def test_an_interruption_ends_with_130(one_command):
    def interrupted():
        raise KeyboardInterrupt

    one_command(interrupted)
    result = run("do")
    assert result.exit_code == 130
    assert result.stderr == "deepspec: interrupted; nothing was left half-written.\n"


def test_a_bug_stays_a_traceback(one_command):
    def bug():
        raise ZeroDivisionError("a bug")

    one_command(bug)
    result = run("do")
    assert isinstance(result.exception, ZeroDivisionError)


def test_what_was_typed_is_known(one_command):
    @click.pass_context
    def show(ctx):
        click.echo(ctx.obj)

    one_command(show)
    assert run("do").output == "deepspec do\n"


def test_a_closed_pipe_is_quiet():
    """`deepspec models | head -1` says nothing on stderr."""
    code = "import sys; from deepspec_cli.main import main; sys.argv[0] = 'deepspec'; main()"
    first = subprocess.Popen(
        [sys.executable, "-c", code, "models", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    first.stdout.close()
    complaint = first.stderr.read().decode()
    first.stderr.close()
    first.wait()
    assert complaint == ""
