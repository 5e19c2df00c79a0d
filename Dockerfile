# Two images from one file:
#   docker build -t calibrated-router .                              everything: the proxy, calibration, MLflow's server and SQLite store
#   docker build -t calibrated-router-proxy --target proxy .         the proxy alone, for replicas in front of an MLflow server
# `make image` builds both with their bills of materials. Run:
#   docker run -p 8000:8000 -v router:/home/router/.router -e OPENAI_API_KEY -e ROUTER_API_KEYS \
#       --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges calibrated-router
#
# A tag can be moved, a digest cannot. Where builds must be the same tomorrow, look the digest up and pass it on:
#   docker buildx imagetools inspect python:3.11-slim
#   docker build --build-arg PYTHON_IMAGE=python:3.11-slim@sha256:... -t calibrated-router .
ARG PYTHON_IMAGE=python:3.11-slim

# Only this stage has a compiler.
FROM ${PYTHON_IMAGE} AS kernel
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY requirements-dev.lock ./
RUN for tool in cython setuptools; do sed -n "/^$tool==/,/[^\\\\]\$/p" requirements-dev.lock; done > build.lock && \
    python -m venv --without-pip build && \
    pip --python build/bin/python install --no-cache-dir --disable-pip-version-check --require-hashes -r build.lock
COPY pyproject.toml setup.py README.md LICENSE ./
COPY router ./router
RUN build/bin/python setup.py --quiet build_ext --inplace && ls router/policy/prediction_kernel.*.so

FROM ${PYTHON_IMAGE} AS proxy-build
WORKDIR /app
RUN python -m venv --without-pip /app/.venv
COPY requirements-proxy.lock ./
RUN pip --python /app/.venv/bin/python install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements-proxy.lock
COPY pyproject.toml ./
COPY data ./data
COPY router ./router
COPY --from=kernel /app/router/policy/*.so ./router/policy/
# Compiled here, since nothing can be written where it runs.
RUN python -m compileall -q router

FROM ${PYTHON_IMAGE} AS build
WORKDIR /app
RUN python -m venv --without-pip /app/.venv
COPY requirements.lock ./
RUN pip --python /app/.venv/bin/python install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.lock
COPY pyproject.toml ./
COPY data ./data
COPY router ./router
COPY --from=kernel /app/router/policy/*.so ./router/policy/
COPY calibration ./calibration
RUN python -m compileall -q router calibration

FROM ${PYTHON_IMAGE} AS base
ARG VERSION=0.2.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="calibrated-router" \
      org.opencontainers.image.description="An OpenAI-compatible proxy that sends each question to the cheapest model that is good enough" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      calibrated-router.sbom="/app/sbom.cdx.json"
# The images install nothing where they run, so they need no installer. The base has no compiler.
RUN python -m pip uninstall --yes --quiet pip setuptools wheel 2> /dev/null; \
    useradd --create-home --uid 10001 router && install -d -o router -g router -m 0700 /home/router/.router /home/router/keys
WORKDIR /app
ENV PATH=/app/.venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/app \
    ROUTER_HOME=/home/router/.router MPLCONFIGDIR=/tmp/matplotlib
USER 10001:10001
VOLUME /home/router/.router
EXPOSE 8000
# In bash alone: starting a Python each time would cost more than answering.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s CMD ["bash", "-c", \
    "exec 3<>/dev/tcp/127.0.0.1/8000 && printf 'GET /health HTTP/1.0\\r\\nhost: localhost\\r\\n\\r\\n' >&3 && head -1 <&3 | grep -q ' 200 '"]
# A container listens beyond loopback, so it needs keys that clients must present: ROUTER_API_KEYS.
CMD ["python", "-m", "router", "serve", "--host", "0.0.0.0", "--port", "8000"]

FROM base AS proxy
LABEL calibrated-router.packages="/app/requirements-proxy.lock"
COPY --from=proxy-build /app /app
# The pattern matches nothing where no bill of materials was made; the lock is always there.
COPY LICENSE build/proxy/sbom.cdx.jso[n] ./

FROM base
LABEL calibrated-router.packages="/app/requirements.lock"
COPY --from=build /app /app
COPY LICENSE build/sbom.cdx.jso[n] ./
