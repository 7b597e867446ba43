"""The equations in plain numpy, importing nothing of losa: what the code is held against."""
