"""What is said of a recipe or a space before it runs: caveats, what is refused, how much there is to do.

Left out: numbers of trials, which are `workbench.plots.table`'s.
"""

from __future__ import annotations

from collections.abc import Iterable

from workbench.draft import ModelFacts, resolve_keep
from workbench.errors import UserError
from workbench.plots.markup import Markup, join, tag
from workbench.tuning.effort import Effort
from workbench.widgets.words import duration, roughly


def caveats_html(notes: list[str], refused: list[tuple[str, str]], of: int) -> Markup:
    """What a person should know before the run: `notes`, and (runtime, reason) for those of `of` that refuse."""
    parts = [tag("p", note, class_="wb-caveat") for note in notes]
    if refused:
        names = ", ".join(name for name, _ in refused) if len(refused) < 3 else f"{len(refused)} of {of} runtimes"
        lines = [tag("li", tag("b", name), f": {reason}") for name, reason in refused]
        parts.append(tag("details", tag("summary", f"not on {names}"), tag("ul", *lines)))
    return join(parts)


def keep_problem(keep: Iterable[str], facts: ModelFacts | None) -> UserError | None:
    """What is wrong with the patterns of layers to leave alone, with near names; None too where no model is known."""
    try:
        resolve_keep(keep, facts.layers if facts else ())
    except UserError as error:
        return error if facts else None
    return None


def estimate_html(found: Effort, typical: tuple[float, int] | None) -> Markup:
    """How many recipes, and how long all of them take, as far as it is known."""
    if not found.recipes:
        return tag("p", "Nothing of this can be run here: see the reasons above.", class_="wb-what")
    said = [tag("b", f"{found.recipes:,} recipe{'s' * (found.recipes > 1)}")]
    if typical:
        seconds, known = typical
        all_of_them = " for all" if found.recipes > 1 else ""
        took = f"{duration(seconds)} each, as in {known} trial{'s' * (known > 1)} of this study"
        said.append(tag("span", f"about {roughly(60 * found.minutes(seconds))}{all_of_them} ({took})"))
    elif found.training_minutes:
        said.append(tag("span", f"up to {roughly(60 * found.training_minutes)} of training, and the measuring"))
    else:
        said.append(tag("span", "the first trial will tell how long one takes"))
    if found.training and found.recipes > 1:
        train = "all train" if found.training == found.recipes else f"{found.training:,} train"
        said.append(tag("span", train))
    return tag("p", join(said, " · "), class_="wb-estimate")
