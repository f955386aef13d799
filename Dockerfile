# biqa in a container.
#   CPU:   docker build -t biqa .
#   CUDA:  docker build -t biqa-cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .   then: docker run --gpus all ...
# The working folder is /work; weights, features and reduced images are kept in the volume /cache.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=owl2
WORKDIR /source
RUN python -m venv /opt/biqa
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY biqa biqa
COPY conf conf
# the build of TORCH_INDEX has a version with a suffix (+cpu, +cu130), which pip prefers to the same version without one
RUN /opt/biqa/bin/python -m pip install --no-cache-dir --disable-pip-version-check -c constraints.txt --extra-index-url "${TORCH_INDEX}" ".[${EXTRAS}]"

FROM python:${PYTHON}-slim
ARG UID=1000
COPY --from=build /opt/biqa /opt/biqa
RUN useradd --create-home --uid "${UID}" biqa && install --directory --owner=biqa /cache /cache/huggingface /cache/biqa /work
ENV PATH=/opt/biqa/bin:${PATH} HF_HOME=/cache/huggingface BIQA_CACHE=/cache/biqa PYTHONUNBUFFERED=1
USER biqa
VOLUME /cache
WORKDIR /work
HEALTHCHECK --interval=10m --timeout=3m --start-period=3m CMD ["biqa", "doctor"]
ENTRYPOINT ["biqa"]
CMD ["--help"]
