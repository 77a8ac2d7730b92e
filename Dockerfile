# The stock LiteLLM proxy with this bundle; the same image is worker, migration and crawler (docs/image.md).
# Configuration: mount your litellm_config.yaml and config/ over those in /app. Data: one volume at /data, which
# holds temporary files, too: nothing else need be writable.
ARG BASE_IMAGE=python:3.14-slim

FROM ${BASE_IMAGE} AS build
WORKDIR /build
RUN python -m venv --without-pip /opt/venv
COPY requirements-image.lock ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip --python /opt/venv/bin/python install --no-deps --require-hashes -r requirements-image.lock
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY plugins plugins
COPY crawler crawler
# Apart from their dependencies: a new version of ours is then a layer of a few megabytes.
RUN python -m pip --python /opt/venv/bin/python install --no-cache-dir --no-deps --no-build-isolation \
      --prefix /packages ./crawler . \
 && python -m pip --python /opt/venv/bin/python uninstall --yes setuptools

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="litellm-collections" \
      org.opencontainers.image.description="The stock LiteLLM proxy with sign-in, permission-checked document collections and cited answers" \
      org.opencontainers.image.licenses="Apache-2.0"
# Languages of text recognition, as Tesseract names them, with spaces between: "eng deu".
ARG OCR_LANGUAGES=""
# tini is process 1: it passes signals on and reaps what conversions leave behind.
# The base image comes without the standard library's bytecode, and a read-only root can't keep any.
# hadolint ignore=DL3008,SC2046
RUN apt-get update \
 && apt-get install -y --no-install-recommends tini \
      $(for language in ${OCR_LANGUAGES}; do echo "tesseract-ocr-${language}"; done) \
 && rm -rf /var/lib/apt/lists/* \
 && python -m compileall -q "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
 && useradd --uid 10001 --no-create-home --home-dir /data collections \
 && install -d -o 10001 -g 10001 -m 0700 /data
WORKDIR /app
# KEEPALIVE_TIMEOUT: seconds; longer than reverse proxies keep a connection that nothing is asked on.
ENV PATH=/opt/venv/bin:$PATH \
    COLLECTIONS_CONFIG=/app/config \
    DATA_DIR=/data \
    TMPDIR=/data \
    LITELLM_LOCAL_MODEL_COST_MAP=True \
    KEEPALIVE_TIMEOUT=75
VOLUME /data
EXPOSE 4000
HEALTHCHECK --interval=10s --timeout=6s --start-period=60s \
  CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 4000, timeout=5); c.request('GET', '/health/collections'); raise SystemExit(c.getresponse().status != 200)"]
# 143: ended by SIGTERM, as it was told.
ENTRYPOINT ["tini", "-e", "143", "--"]
CMD ["python", "-m", "plugins", "serve", "--", "--host", "0.0.0.0", "--port", "4000"]
COPY --from=build /opt/venv /opt/venv
COPY --from=build /packages /opt/venv
COPY litellm_config.yaml ./
COPY config config
USER 10001
