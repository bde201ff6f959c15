"""The command `nextscene`: each command of `pipelines/` as a subcommand, loaded when it is called.

Only click and rich are imported before that, so `nextscene --help` and completion are quick.
"""

from __future__ import annotations

from nextscene.pipelines.cli import startup  # noqa: F401  before all that may be missing, and all that takes its time

# isort: split
import difflib
from dataclasses import dataclass
from importlib import import_module

import click
from click.shell_completion import get_completion_class

from nextscene.pipelines.cli import console
from nextscene.pipelines.cli.command import CONTEXT, Command, describe_misuse

_SIMILAR = 0.5


@dataclass(frozen=True)
class Subcommand:
    """The module and name of a subcommand, and the first sentence of its help."""

    module: str
    sentence: str
    name: str = "main"

    def load(self) -> click.Command:
        found: click.Command = getattr(import_module(self.module), self.name)
        return found


_PIPELINES = "nextscene.pipelines"
_MODES = f"{_PIPELINES}.cli.build_modes"
SUBCOMMANDS = {
    "build": Subcommand(f"{_PIPELINES}.build_nsp", "Build a next-scene dataset from captioned video."),
    "status": Subcommand(_MODES, "Show how far the build of the dataset in OUT is.", "status"),
    "verify": Subcommand(_MODES, "Read the dataset in OUT back and check all of it.", "verify"),
    "retry": Subcommand(_MODES, "Process the clips of the dataset in OUT that ended as OUTCOMES again.", "retry"),
    "estimate": Subcommand(_MODES, "Estimate what the judge claude would cost; nothing is sent.", "estimate"),
    "show": Subcommand(f"{_PIPELINES}.show", "Show the dataset in OUT, or one clip or shard of it."),
    "report": Subcommand(
        f"{_PIPELINES}.report", "Write OUT/report.html, the page of a dataset, training or evaluation."
    ),
    "encode": Subcommand(f"{_PIPELINES}.encode_latents", "Compute the latents of a dataset, for faster training."),
    "train": Subcommand(f"{_PIPELINES}.train", "Train one stage of the next-scene model."),
    "generate": Subcommand(f"{_PIPELINES}.generate", "Generate videos of what happens after scenes."),
    "evaluate": Subcommand(f"{_PIPELINES}.evaluate", "Score models by causal consistency, side by side."),
    "make-tiny": Subcommand(f"{_PIPELINES}.make_tiny", "Make toy checkpoints of a dataset, to try training on a CPU."),
    "make-shapes": Subcommand(f"{_PIPELINES}.make_shapes", "Draw a world of moving shapes that can be learned."),
    "fetch-film": Subcommand(f"{_PIPELINES}.fetch_film", "Fetch the sample film and its captioned shot list."),
    "completion": Subcommand(f"{_PIPELINES}.cli.main", "Print the script for completion in a shell.", "completion"),
}


class LazyGroup(click.Group):
    """A group with the subcommands of `SUBCOMMANDS`. Errors in its flags end the process as in `Command`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*SUBCOMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = SUBCOMMANDS.get(cmd_name)
        return found.load() if found else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, one.sentence) for name, one in SUBCOMMANDS.items()])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.exceptions.NoArgsIsHelpError:
            raise
        except click.UsageError as error:
            console.fail(describe_misuse(error, self.get_params(ctx)), console.USAGE)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in SUBCOMMANDS and not ctx.resilient_parsing:
            if "/" in args[0]:
                console.fail(
                    f"{args[0]}: a path where a command should be; name one before it, such as show {args[0]}",
                    console.USAGE,
                )
            near = difflib.get_close_matches(args[0], SUBCOMMANDS, n=1, cutoff=_SIMILAR)
            console.fail(
                f"{args[0]}: no such command; {f'is {near[0]} meant?' if near else '--help lists them'}", console.USAGE
            )
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings=CONTEXT)
@click.version_option(package_name="nextscene", message="%(prog)s %(version)s", help="Show the version and exit.")
def main() -> None:
    """Build next-scene-prediction datasets from captioned video, and train and evaluate a model on them.

    `nextscene COMMAND --help` explains a command and all its flags.
    """


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh"]))
def completion(shell: str) -> None:
    """Print the script for completion in a shell.

    For bash add `eval "$(nextscene completion bash)"` to ~/.bashrc, for zsh `eval "$(nextscene completion zsh)"` to
    ~/.zshrc.

    Exit codes: 0 done, 2 wrong usage.
    """
    script = get_completion_class(shell)
    assert script  # noqa: S101 – click has both
    click.echo(script(main, {}, "nextscene", "_NEXTSCENE_COMPLETE").source())
