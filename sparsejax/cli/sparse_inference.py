"""Commands of sparse inference: predictors for the neurons of a Llama, and how ``generate`` finds one."""

from __future__ import annotations

from collections.abc import Sequence

from sparsejax.cli.arguments import one_line
from sparsejax.training.recipes.llama.calibrate_settings import LlamaCalibrateSettings

_GENERATORS = ("ten", "llama")
_HELP = ("-h", "--help")


def calibrate(settings: LlamaCalibrateSettings) -> None:
    """Fit predictors for the neurons of a Llama in a GGUF file, so that tokens can compute some of them."""
    from sparsejax.console import show_calibration
    from sparsejax.training.recipes.llama.calibrate import calibrate_file

    with one_line(ValueError):
        found = calibrate_file(settings)
    if not settings.quiet:
        show_calibration(found)


def with_family(arguments: Sequence[str]) -> list[str]:
    """The arguments of a command line, with the family that ``generate MODEL`` leaves away.

    Example:
      >>> with_family(["generate", "model.gguf", "--prompt", "a"])
      ['generate', 'llama', 'model.gguf', '--prompt', 'a']
      >>> with_family(["generate", "ten", "--prompt", "a"])
      ['generate', 'ten', '--prompt', 'a']
    """
    told = arguments[:1] == ["generate"] and arguments[1:2] and arguments[1] not in (*_GENERATORS, *_HELP)
    return [*arguments[:1], "llama", *arguments[1:]] if told else [*arguments]
