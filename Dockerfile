# `xlgen serve` in a container; docs/guides/serving.md shows how to build and run it.
FROM python:3.12-slim
# Further options of pip, such as an index with CPU builds of torch, which are smaller.
ARG PIP_OPTIONS=""
# Extras of the package: the service, and what runs exported models; `lora` adds what adapters need.
ARG EXTRAS="serve,onnx"
COPY . /src
# setup.cfg has the bounds of versions.
# hadolint ignore=DL3013
RUN pip install --no-cache-dir $PIP_OPTIONS "/src[$EXTRAS]" && rm -r /src && useradd --create-home --uid 1000 xlgen
# By its number, by which an orchestrator can tell that it is not root.
USER 1000
EXPOSE 8000
# It answers when the models are loaded.
HEALTHCHECK --interval=10s --timeout=5s --start-period=5m \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["xlgen", "serve", "--host", "0.0.0.0", "--port", "8000"]
CMD ["--model", "/models/model"]
