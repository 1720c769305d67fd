# The page and the endpoint in a container: ONNX Runtime, no TensorFlow, no download when it runs.
#
#     docker build --tag darknet-face .
#     docker run --rm --read-only --tmpfs /tmp --publish 127.0.0.1:8000:8000 darknet-face
#     docker run --rm --volume "$PWD/photos:/photos:ro" darknet-face /photos --json -
#
# The second line serves http://127.0.0.1:8000; the third classifies a folder. docs/serving.md says more.
FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE darknet19.py ./
COPY darknet_face darknet_face
COPY saved_models saved_models
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.13-slim
COPY --from=build /wheels /wheels
# The versions that were tried together; nothing else of that file is installed.
COPY requirements-tf2.txt /wheels/
RUN grep -v find-links /wheels/requirements-tf2.txt > /wheels/constraints.txt \
    && pip install --no-cache-dir --constraint /wheels/constraints.txt \
        "$(echo /wheels/*.whl)[serve,heic,video]" \
    && rm -r /wheels
RUN useradd --uid 10001 --create-home face
USER face
WORKDIR /home/face
ENV PYTHONUNBUFFERED=1
EXPOSE 8000
HEALTHCHECK --start-period=30s CMD ["python", "-c", "from urllib.request import ProxyHandler, build_opener as o; o(ProxyHandler({})).open('http://127.0.0.1:8000/healthz', timeout=5)"]
ENTRYPOINT ["darknet-face"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]
