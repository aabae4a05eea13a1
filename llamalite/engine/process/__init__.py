"""The engine in a process of its own, so that a crash in native code is an error message.

`supervisor` starts it and starts it anew, `child` is its main, `server` and `client` are the two
ends of a connection, `aio` the client for asyncio, `host` lets several programs share engines.
`wire` and `crossing` say what crosses, `auth` and `sockets` how. Nothing is pickled.
"""
