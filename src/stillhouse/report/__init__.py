"""results.json -> a verdict, a table, a model card and one self-contained HTML page.

Everything here reads one plain dict, the content of results.json; nothing knows a model or a recipe.  Import from the
modules: `verdict` and `table` cost nothing, `charts` and `html` import matplotlib.
"""
