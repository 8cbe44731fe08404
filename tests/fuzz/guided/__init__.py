"""Coverage-guided fuzzing of every decoder, with atheris (libFuzzer for Python); see ``docs/fuzzing.md``."""
