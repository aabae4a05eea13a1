"""The app under cheroot, with TLS if CERT and KEY name files: python cheroot_server.py"""

import os
import signal
import threading

from cheroot import wsgi
from cheroot.ssl.builtin import BuiltinSSLAdapter
from wsgi import app

host, _, port = os.environ.get("BIND", "127.0.0.1:8080").rpartition(":")
server = wsgi.Server((host, int(port)), app, numthreads=32, request_queue_size=1024)
server.shutdown_timeout = 30  # seconds that running answers have at the end
if "CERT" in os.environ:
    server.ssl_adapter = BuiltinSSLAdapter(os.environ["CERT"], os.environ["KEY"])
# stop() waits for answers, so that a handler can't call it.
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.stop).start())
server.start()
app.site.close()
