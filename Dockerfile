# agebench on a CPU, for a user without root rights.
#
#   docker build --tag agebench .
#   docker run --rm agebench score --help
#   docker run --rm --publish 127.0.0.1:7860:7860 --volume "$PWD:/work:ro" agebench demo runs/NAME --host 0.0.0.0
#   docker run --rm --volume agebench-data:/data --volume "$PWD:/work" agebench data list
#
# PyTorch for x86-64 contains CUDA. For an image of a fraction of the size, pass the address of PyTorch's index of CPU builds, which
# its installation page shows: --build-arg TORCH_INDEX=ADDRESS
FROM python:3.12-slim AS build
ARG TORCH_INDEX=""
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY agebench agebench
COPY registry registry
COPY benchmarks/suites benchmarks/suites
RUN python -m venv /venv \
 && /venv/bin/pip install --no-cache-dir --constraint constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} '.[detect,demo]'

FROM python:3.12-slim
RUN useradd --create-home agebench \
 && mkdir /data /cache /work \
 && chown agebench /data /cache /work
COPY --from=build /venv /venv
ENV PATH="/venv/bin:$PATH" AGEBENCH_DATA=/data AGEBENCH_CACHE=/cache
USER agebench
WORKDIR /work
EXPOSE 7860
ENTRYPOINT ["agebench"]
CMD ["--help"]
