# One image for both programs: `python app.py` serves, `python key_rotation.py` renews the pool's keys.
# 3.11 is the Python that the test suite runs on. Every package in requirements.txt has a wheel for it, on x86-64 and
# on ARM, so nothing is compiled here.
FROM python:3.11-slim

LABEL org.opencontainers.image.title="OpenRouter Proxy" \
      org.opencontainers.image.description="A self-hosted gateway in front of OpenRouter" \
      org.opencontainers.image.version="1.0.0.dev0" \
      org.opencontainers.image.licenses="MIT"

ENV APP_ENV=production \
    DATA_DIR=/data \
    TMPDIR=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

# The root file system may be read-only: the service writes to DATA_DIR, and gunicorn (SERVER=gunicorn) to TMPDIR.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin gateway \
    && install --directory --owner=gateway --group=gateway --mode=0700 /data

WORKDIR /app

# `--build-arg TRACES=yes`: with what OTEL_EXPORTER_OTLP_ENDPOINT needs.
ARG TRACES=
COPY requirements.txt requirements-traces.txt ./
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore \
    --only-binary=:all: --require-hashes -r requirements.txt ${TRACES:+-r requirements-traces.txt}

COPY LICENSE *.py ./
COPY accounts ./accounts
COPY alerts ./alerts
COPY billing ./billing
COPY commands ./commands
COPY config ./config
COPY formats ./formats
COPY foundation ./foundation
COPY gateway ./gateway
COPY metrics ./metrics
COPY migrations ./migrations
COPY monitor ./monitor
COPY pool ./pool
COPY replicas ./replicas
COPY storage ./storage
COPY serving ./serving
COPY upstream ./upstream
COPY vault ./vault
COPY web ./web
RUN python -m compileall -q .

USER 10001:10001
EXPOSE 5000
STOPSIGNAL SIGTERM

# Healthy: it answers, and has an OpenRouter key to answer with.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('PORT') or 5000), timeout=4); c.request('GET', '/api/health'); sys.exit(c.getresponse().status != 200)"]

CMD ["python", "app.py"]
