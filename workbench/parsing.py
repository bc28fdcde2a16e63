"""Recipes from the code that `repr` prints: read, never run."""

from __future__ import annotations

import ast
from typing import Any

from workbench.backends.base import Backend
from workbench.recipe import Recipe, no_recipe
from workbench.registry import classes, unknown
from workbench.techniques.base import Technique


def recipe_from_code(code: str) -> Recipe:
    """The recipe that `repr` printed; raises `UserError`s for what is not one.

    Only plug-in names, keyword arguments and literals are read; nothing is run.
    """

    def build(node: ast.expr) -> Any:
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            return ast.literal_eval(node)
        named = {k.arg: build(k.value) for k in node.keywords if k.arg}
        if node.func.id == "Recipe":
            return Recipe(*map(build, node.args), **named)
        known = {name: kind for name, kind in classes().items() if issubclass(kind, Technique | Backend)}
        if node.func.id not in known:
            raise unknown("plug-in class", node.func.id, ["Recipe", *known])
        if node.args:
            raise ValueError("a plug-in's knobs are named")
        return known[node.func.id].make(**named)

    try:
        recipe = build(ast.parse(code, mode="eval").body)
    except (SyntaxError, TypeError, ValueError) as error:
        raise no_recipe(code) from error
    if not isinstance(recipe, Recipe):
        raise no_recipe(code)
    return recipe
