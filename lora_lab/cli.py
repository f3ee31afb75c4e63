"""`lora-lab COMMAND …`: finds the command, imports it, and hands it the rest of the line as it was typed."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from importlib.util import find_spec

import click
from click.shell_completion import CompletionItem

from experiments import names
from lora_lab.commands import Command, available

EPILOG = """\b
Settings are written alike everywhere: --model and --task name a config, a hub id, a
folder or a data file, and field=value is any setting of a run (method.r=4 seed=0,1,2).
\b
Completion:  eval "$(_LORA_LAB_COMPLETE=bash_source lora-lab)"     (or zsh_source, fish_source)
"""
GROUPS = ("model", "task", "method", "preset", "engine")


class _Dispatched(click.Command):
    """A command that parses its own line."""

    def __init__(self, command: Command) -> None:
        super().__init__(command.name, short_help=command.about, add_help_option=False)
        self.command = command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.args = args
        return args

    def invoke(self, ctx: click.Context) -> int:
        asked, nothing_said = {"-h", "--help"} & set(ctx.args), self.name == "study" and not ctx.args
        if not self.command.own_help and (nothing_said or asked):
            click.echo(self.get_help(ctx))
            return 0
        try:
            return _call(self.command, ctx.args)
        finally:
            if asked:  # of its own help
                click.echo("\nexamples:\n" + "\n".join(f"  {example}" for example in self.command.examples))

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        about = self.command
        place = " STUDY" if self.name == "study" else ""
        formatter.write(
            f"usage: lora-lab {self.name}{place} [--model M] [--task T] [field=value …]\n\n{about.about}\n\n"
        )
        formatter.write("".join(f"  {example}\n" for example in about.examples))
        if self.name == "study":
            formatter.write("\nstudies:\n")
            formatter.write("".join(f"  {name:<17} {what}\n" for name, what in _studies().items()))
        formatter.write(f"\n{EPILOG.partition('Completion')[0].replace(chr(8), '').strip()}\n")

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names of studies, and values of settings that name a config."""
        typed = ctx.args
        if self.name == "study" and not typed:
            return [CompletionItem(name, help=what) for name, what in _studies().items() if name.startswith(incomplete)]
        key, equals, value = incomplete.partition("=")
        if typed and incomplete == "=":  # bash has taken `preset=` apart
            key, equals, value, shown = typed[-1], "=", "", ""
        elif typed and typed[-1] == "=":
            key, equals, value, shown = typed[-2] if len(typed) > 1 else "", "=", incomplete, ""
        else:
            shown = f"{key}="
        if equals:
            known = names.options(key) if key in GROUPS else []
            return [CompletionItem(f"{shown}{name}") for name in known if name.startswith(value)]
        return [CompletionItem(f"{group}=") for group in GROUPS if not self.command.own_help and group.startswith(key)]


class _Lab(click.Group):
    """The commands, in the order of their list, with the nearest name for one that there is not."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(available())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        command = available().get(cmd_name)
        return _Dispatched(command) if command else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if self.get_command(ctx, args[0]) is None and not ctx.resilient_parsing:
            raise click.UsageError(f"unknown command {args[0]}{names.did_you_mean(args[0], list(available()))}")
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Lab, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="lora-lab")
def lab() -> None:
    """Every analysis of the LoRA paper, on your model and your data.

    \b
    lora-lab study rank_ablation               Table 6 on the default model and data
    lora-lab study subspace                    Figures 3, 4, 6, 7: what two runs share
    lora-lab study rank_ablation --model FacebookAI/roberta-base --task reviews.csv
    lora-lab COMMAND --help                    options and examples of a command
    """


def _studies() -> dict[str, str]:
    """Study -> what it is, with the paper's item, in the paper's order."""
    from analysis.report import entries

    found = [one for one in entries.load() if find_spec(f"analysis.studies.{one.folder}")]
    return {one.folder: f"{one.title} ({one.paper})" for one in found}


def _call(command: Command, arguments: Sequence[str]) -> int:
    module, _, function = command.where.partition(":")
    sys.argv = [f"lora-lab {command.name}", *arguments]
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is imported: threads wait without spinning
    before = signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # while it is imported, nothing was begun
    called = getattr(importlib.import_module(module), function)
    signal.signal(signal.SIGINT, before)
    return int(called(list(arguments)))


def main() -> int:
    """Entry of the console script: the command's exit code; 2 with one line if there is no such, 130 after Ctrl-C."""
    try:
        code = lab.main(prog_name="lora-lab", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 0
    except click.ClickException as error:
        print(f"error: {error.format_message()}", file=sys.stderr)
        return 2
    except click.Abort:  # Ctrl-C, in a command that stores nothing on its way
        print("interrupted", file=sys.stderr)
        return 130
    return int(code or 0)
