"""`minifcn recipe`: what a recipe's numbers mean, and the same recipe under another loss."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.markup import escape

from .. import recipes
from ..errors import MinifcnError
from ..ops.cross_entropy import REDUCTIONS
from .console import console, print_lines

HELP = "say what a training recipe means, or translate it to another normalisation of the loss"


def _size(text: str) -> int:
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH, for instance 375x500")
    return int(height) * int(width)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    default = "x".join(map(str, recipes.PIXELS))
    parser.add_argument("recipe", metavar="FILE", type=Path, help="a recipe, such as recipes/fcn32s-voc-heavy.toml")
    parser.add_argument(
        "--pixels", type=_size, default=default, metavar="HxW", help=f"size of the images (default: {default})"
    )
    parser.add_argument("--as", dest="reduction", choices=REDUCTIONS[:-1], help="translate to this loss")
    parser.add_argument("-o", dest="output", type=Path, metavar="FILE", help="write the translated recipe")


def run(arguments: argparse.Namespace) -> int:
    if arguments.output and not arguments.reduction:
        raise MinifcnError("-o writes a translated recipe: say with --as to which loss")
    recipe = recipes.load(arguments.recipe)
    _print_about(recipe)
    print_lines(recipes.meaning(recipe, arguments.pixels))
    if arguments.reduction is None:
        return 0
    translated = recipes.translate(recipe, arguments.reduction, arguments.pixels)
    console.print(f"\nthe same steps with the loss {arguments.reduction}:")
    for name, value in translated.settings.items():
        if recipe.settings.get(name) != value:
            console.print(f"  {name} = {value!r}", soft_wrap=True)
    print_lines(recipes.meaning(translated, arguments.pixels))
    if arguments.output:
        translated.save(arguments.output)
        console.print(f"written to {arguments.output}")
    return 0


def _print_about(recipe: recipes.Recipe) -> None:
    for name in ("title", "source", "expect", "lacks"):
        if name in recipe.about:
            console.print(f"  {name + ':':8} {escape(recipe.about[name])}", soft_wrap=True)
    for text in recipe.about.get("differs", ()):
        console.print(f"  differs: {escape(text)}", soft_wrap=True)
    for name, text in recipe.needs.items():
        console.print(f"  needs:   --{name.replace('_', '-')} {escape(text)}", soft_wrap=True)
