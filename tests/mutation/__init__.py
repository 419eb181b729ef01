"""How much of the package could be wrong without a test that notices: mutants, drawn and run.

``python -m tests.mutation FOLDER`` draws a seeded sample of small changes to the package (Cosmic
Ray makes them), runs for each the tests of the changed file in a copy of the project, and prints
which of them no test noticed. It goes on where an earlier call with the same folder ended.
``sampling`` draws, ``choice`` says which tests a file has, ``mutants`` speaks with Cosmic Ray,
``reporting`` reads ``equivalent.txt`` and writes the report.
"""
