"""Compute: from questions and models to a store.

The mathematics (`objectives`, `alignment`, `estimators`, `statistics`) needs numpy alone; torch and
transformers live behind `models`, `engine` and `scoring`. Importing this package imports neither.
"""
