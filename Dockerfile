# The stock LiteLLM proxy with this bundle. Configuration: mount your litellm_config.yaml and config/ over
# those in /app; data: one volume at /data.
ARG BASE_IMAGE=python:3.13-slim

FROM ${BASE_IMAGE} AS build
WORKDIR /build
RUN python -m venv /opt/venv
COPY requirements.lock ./
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY plugins plugins
COPY crawler crawler
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation ./crawler .

FROM ${BASE_IMAGE}
RUN useradd --uid 10001 --create-home --home-dir /data collections
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY litellm_config.yaml ./
COPY config config
ENV PATH=/opt/venv/bin:$PATH \
    COLLECTIONS_CONFIG=/app/config \
    DATA_DIR=/data \
    LITELLM_LOCAL_MODEL_COST_MAP=True
USER 10001
VOLUME /data
EXPOSE 4000
HEALTHCHECK --interval=10s --timeout=6s --start-period=60s \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:4000/health/collections', timeout=5)"]
CMD ["sh", "-c", "python -m plugins check && exec litellm --config litellm_config.yaml --host 0.0.0.0 --port 4000"]
