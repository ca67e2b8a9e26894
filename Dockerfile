# Score-Fusion with its weights, for a CPU; --build-arg DEVICE=cu130 for NVIDIA GPUs, EXTRAS=cluster for Dask (docs/containers.md).
# apptainer.def has the same steps; a test compares the two.
FROM python:3.11-slim-bookworm AS build
ARG DEVICE=cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/${DEVICE}
ARG EXTRAS=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv /opt/score-fusion
ENV PATH=/opt/score-fusion/bin:$PATH
COPY requirements.txt requirements-lock.txt ./
RUN pip install --no-deps --require-hashes -r requirements-lock.txt
# Last of what it needs: from this index comes torch alone, and CUDA where it is a build for GPUs.
RUN pip install --index-url "${TORCH_INDEX}" "$(grep '^torch==' requirements.txt)"
COPY pyproject.toml README.md LICENSE CITATION.cff ./
COPY configs configs
COPY models models
COPY scripts scripts
# hadolint ignore=DL3013
RUN pip install ".${EXTRAS:+[${EXTRAS}]}"

FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="Score-Fusion" org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/score-fusion /opt/score-fusion
# Whoever `--user` names may write to the home: compiled networks and fonts are kept there.
RUN useradd --uid 1000 --create-home score-fusion && chmod 1777 /home/score-fusion
ENV PATH=/opt/score-fusion/bin:$PATH HOME=/home/score-fusion PYTHONUNBUFFERED=1
USER 1000
WORKDIR /data
ENTRYPOINT ["score-fusion"]
