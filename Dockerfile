# Build: docker build -t calibrated-router .
# Run:   docker run -p 8000:8000 -v router:/home/router/.router -e OPENAI_API_KEY -e ROUTER_API_KEYS calibrated-router
FROM python:3.11-slim AS build
WORKDIR /app
RUN python -m venv --without-pip /app/.venv
COPY requirements.lock ./
RUN pip --python /app/.venv/bin/python install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.lock

FROM python:3.11-slim
RUN useradd --create-home --uid 10001 router
WORKDIR /app
COPY --from=build /app/.venv /app/.venv
COPY pyproject.toml ./
COPY data ./data
COPY router ./router
COPY calibration ./calibration
ENV PATH=/app/.venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONPATH=/app ROUTER_HOME=/home/router/.router
USER router
RUN mkdir -p /home/router/.router
VOLUME /home/router/.router
EXPOSE 8000
# In bash alone: starting a Python each time would cost more than answering.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s CMD ["bash", "-c", \
    "exec 3<>/dev/tcp/127.0.0.1/8000 && printf 'GET /health HTTP/1.0\\r\\nhost: localhost\\r\\n\\r\\n' >&3 && head -1 <&3 | grep -q ' 200 '"]
# A container listens beyond loopback, so it needs keys that clients must present: ROUTER_API_KEYS.
CMD ["python", "-m", "router", "serve", "--host", "0.0.0.0", "--port", "8000"]
