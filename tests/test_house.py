"""The house's rules that a machine can hold: sizes, names, where things are."""
import ast
import os

import pytest

from utils.files import ROOT

FOLDERS = [name for name in sorted(os.listdir(ROOT))
           if not name.startswith(".") and os.path.isdir(os.path.join(ROOT, name))]
PATHS = sorted(os.path.relpath(os.path.join(folder, name), ROOT) for top in FOLDERS
               for folder, _, names in os.walk(os.path.join(ROOT, top)) for name in names if name.endswith(".py"))
MAX_LINES = 400
NO_NOUNS = {"own", "some", "found", "rest", "kept", "most"}  # a name says which: batch, row, table


def tree_of(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return ast.parse(file.read())


def names_in(tree):
    """(name, line) of whatever is given a name."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno


@pytest.mark.parametrize("path", PATHS)
def test_a_file_is_read_at_one_sitting_and_its_names_are_nouns(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        assert len(file.readlines()) <= MAX_LINES
    named = [(name, line) for name, line in names_in(tree_of(path))
             if NO_NOUNS & set(name.lower().split("_")) and not name.startswith("test_")]
    assert not named


@pytest.mark.parametrize("path", PATHS)
def test_a_file_begins_with_what_it_is_for(path):
    tree = tree_of(path)
    assert not tree.body or ast.get_docstring(tree)


def test_utils_maps_its_rooms_and_every_file_in_its_hall():
    import utils

    hall = os.path.join(ROOT, "utils")
    for name in os.listdir(hall):
        if not name.startswith("_"):
            listed = name + "/" if os.path.isdir(os.path.join(hall, name)) else name
            assert "\n    %s " % listed in utils.__doc__, listed
