"""Calls over gRPC: how each is written as messages and read again, and the two channels that carry it. Needs the extra
`grpc`; nothing outside of here imports it but where an address asks for it."""
