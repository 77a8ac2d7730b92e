# The product's image and what its tests need; the repository is mounted at /src.
ARG IMAGE
FROM ${IMAGE}
USER 0
COPY requirements.lock /tmp/
# The base image's pip: the environment has none.
RUN PATH=/usr/local/bin:/usr/bin:/bin python3 -m pip --python /opt/venv/bin/python install --no-deps --require-hashes -r /tmp/requirements.lock
WORKDIR /src
USER 10001
