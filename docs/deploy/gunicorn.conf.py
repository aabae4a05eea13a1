"""gunicorn --config gunicorn.conf.py wsgi:app"""

import os

bind = os.environ.get("BIND", "127.0.0.1:8080")
workers = 4
worker_class = "gthread"  # a thread for each stream
threads = 16
timeout = 0  # of a silent worker; gthread workers aren't silent while they stream
graceful_timeout = 30  # seconds that running answers have when a worker ends
max_requests = 10_000  # recycle workers now and then: others' streams go on
max_requests_jitter = 1_000
