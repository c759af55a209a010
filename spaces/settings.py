"""One way to tell a user what is wrong with a pydantic-validated setting."""

from __future__ import annotations

import difflib
from typing import Any, get_args

from pydantic import BaseModel, ValidationError


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first problem of a validation error on one line: where, what, which value.

    For an unknown key the keys that are allowed at that place and the nearest one are named.
    """
    # A misspelt key often shows up twice, as unknown and as missing: the first is the clearer one.
    problem = min(error.errors(), key=lambda p: p["type"] != "extra_forbidden")
    location = problem["loc"]
    where = ".".join(map(str, location)) or "value"
    if problem["type"] == "extra_forbidden":
        known = sorted(_keys_at(model, location[:-1]))
        nearest = difflib.get_close_matches(str(location[-1]), known, n=1)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        allowed = f" Allowed: {', '.join(known)}." if known else ""
        return f"unknown key {where!r}.{hint}{allowed}"
    given = "" if problem["type"] == "missing" else f" (got {problem['input']!r})"
    return f"{where}: {problem['msg']}{given}"


def _keys_at(model: type[BaseModel], path: tuple[int | str, ...]) -> set[str]:
    """The keys of the model (or models, for a union) that stands at `path` inside `model`."""
    models = {model}
    for step in path:
        if isinstance(step, int):
            continue
        fields = [m.model_fields[step].annotation for m in models if step in m.model_fields]
        models = {found for annotation in fields for found in _models_in(annotation)} or models
    return {field.alias or name for m in models for name, field in m.model_fields.items()}


def _models_in(annotation: Any) -> set[type[BaseModel]]:
    """All pydantic models that occur in a type annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {annotation}
    return {found for part in get_args(annotation) for found in _models_in(part)}
