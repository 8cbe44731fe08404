"""The command line: ``ragate``.

What lives here: commands, their options and exit codes. What must not: logic of the service. Anything heavy is
imported inside the command that needs it, so that asking a question starts fast.
"""
