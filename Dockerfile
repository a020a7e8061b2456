# The image of a worker: one binary on a base without a shell, run by an unprivileged user. docs/IMAGE.md describes it.
#
#   make image                        builds with docker, podman or buildah, and pins the base images by digest
#   docker build -t waypost .         builds from the tags below, without the labels that `make image` adds
#   docker run --read-only --tmpfs /var/lib/waypost:uid=65532,gid=65532,mode=0700 -e WAYPOST_BROKER__URL -e WAYPOST_HTTP__TOKENS waypost
ARG RUST=docker.io/library/rust:1.95.0-slim-bookworm
ARG RUNTIME=gcr.io/distroless/cc-debian12:nonroot

FROM ${RUNTIME} AS runtime

FROM ${RUST} AS build
# jemalloc is built with make. The version does not matter.
# hadolint ignore=DL3008
RUN command -v make || { apt-get update && apt-get install --yes --no-install-recommends make && rm -rf /var/lib/apt/lists/*; }
WORKDIR /build
# .dockerignore admits only what the build needs.
COPY . .
# The package list of the runtime image, for the list of components.
COPY --from=runtime /var/lib/dpkg /runtime/var/lib/dpkg
COPY --from=runtime /usr/lib/os-release /runtime/usr/lib/os-release
# `true` if cargo's registry folder is mounted, so that the build needs no network.
ARG CARGO_NET_OFFLINE=false
ARG CREATED=1970-01-01T00:00:00Z
# The caches keep crates and compiled dependencies between builds. `touch` makes cargo compile our sources every time.
# This must be one step: buildah 1.28 holds a locked cache until the build ends, so a second step would wait forever.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/build/target,sharing=locked \
    find . -path ./target -prune -o -type f -exec touch {} + \
    && cargo build --release --locked --bin waypost \
    && scripts/split-debug target/release/waypost /dist/waypost \
    && install -D /dist/waypost /rootfs/usr/local/bin/waypost \
    && install -d -m 755 /rootfs/usr/share/doc/waypost \
    && install -m 644 LICENSE /rootfs/usr/share/doc/waypost/LICENSE \
    && scripts/image-sbom /runtime "$CREATED" > /rootfs/usr/share/doc/waypost/sbom.cdx.json \
    && install -d -m 700 /volume/waypost

# The debug lines of the program: docker build --target debug --output target/image .
FROM scratch AS debug
COPY --from=build /dist/waypost.debug /

FROM runtime
ARG VERSION=0.2.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="Waypost" \
      org.opencontainers.image.description="A durable webhook delivery worker for step events from RabbitMQ" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /rootfs/usr/local/bin/waypost /usr/local/bin/waypost
COPY --from=build /rootfs/usr/share/doc/waypost /usr/share/doc/waypost
# A volume that is mounted here gets the owner and mode of this folder. COPY names the parent folder, because it does not copy the mode
# of the folder that it names.
COPY --from=build --chown=65532:65532 /volume /var/lib
ENV WAYPOST_STORE__PATH=/var/lib/waypost \
    WAYPOST_HTTP__LISTEN=0.0.0.0:8080 \
    WAYPOST_LOG__FORMAT=json
WORKDIR /var/lib/waypost
USER 65532:65532
EXPOSE 8080
# The health check is the program itself, because the image has no shell and no curl.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["/usr/local/bin/waypost", "ready"]
ENTRYPOINT ["/usr/local/bin/waypost"]
CMD ["serve"]
