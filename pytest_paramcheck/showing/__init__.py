"""What a person would rather look at than read: tables and pages of a model's parameters.

``rows.py``: what there is to show of each parameter; ``totals.py``: what each module holds;
``asked.py``: what optimizers and losses say of each. ``table.py``: ``param_table`` and what it
returns; ``table_text.py`` and ``table_html.py``: how that looks in a terminal and in a notebook.
``page.py``: ``param_page`` and what it returns; ``page_data.py``: what a page shows, as data;
``page_checks.py``: the results of checks on it;
``statistics.py``: numbers about values; ``runs.py``: gradients and updates, measured;
``compared.py``: two subjects beside one another. ``cases.py``: the page of a model case.
``commands.py``: what the command line does, with ``subjects.py`` (what a command is about) and
``progress.py`` (what it is doing). ``templates/``: the HTML, and how it is filled.
"""
