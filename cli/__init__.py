"""The command line: each command is options, one call of `deepspec.api`, and what it returns printed."""
