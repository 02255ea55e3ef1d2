"""What the OpenAPI says is what the running API does: generated calls find no 5xx and no answer that it does not name.

`SCHEMATHESIS_EXAMPLES` says how many calls are made of each operation (in all about ten times as many).
"""
