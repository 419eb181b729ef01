"""Pages in a browser, and tables and pages in a notebook: what ``tox run -e docs`` runs."""
