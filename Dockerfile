# trailhound's image: the binary, its default configuration and rules, and nothing else; no shell, no emulator, not root.
#
#   docker build --build-arg REVISION="$(git rev-parse HEAD)" --tag trailhound .
#
# The same file makes amd64 and arm64 images: beside Rust there are only C and assembly to compile, which the builder's
# gcc does on both. Nothing here needs BuildKit.

ARG VERSION=0.1.0
ARG REVISION=unknown

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src

# The dependencies, with an empty trailhound on top: a layer that only Cargo.toml and Cargo.lock change.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src && echo 'fn main() {}' >src/main.rs && touch src/lib.rs \
 && cargo build --locked --profile dist --no-default-features
COPY deploy/image/notices /usr/local/bin/
RUN mkdir -p /out/doc && notices >/out/doc/THIRD-PARTY

COPY config config
COPY LICENSE monitored_events.json ./
COPY src src
ARG VERSION
ARG REVISION
# The sources may be older than the empty trailhound's build: touched, they are built again.
RUN touch src/main.rs src/lib.rs \
 && TRAILHOUND_REVISION="$REVISION" cargo build --locked --profile dist --no-default-features \
 && built=$(target/dist/trailhound --version) \
 && case "${built} ${VERSION}" in \
      "trailhound ${VERSION%%[-+]*} (${REVISION}) ${VERSION}") ;; \
      *) echo "VERSION is ${VERSION} and REVISION ${REVISION}, but this is ${built}: see Cargo.toml" >&2; exit 1 ;; \
    esac \
 && install -D -m 0755 -t /out/bin target/dist/trailhound \
 && install -D -m 0644 -t /out/etc config/trailhound.toml monitored_events.json \
 && install -D -m 0644 -t /out/doc LICENSE

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /out/doc/ /usr/share/doc/trailhound/
COPY --from=build /out/etc/ /etc/trailhound/
COPY --from=build /out/bin/trailhound /usr/local/bin/trailhound

WORKDIR /etc/trailhound
# The number, so that a platform that wants no root can tell.
USER 65532:65532
ENV TRAILHOUND_LOG__FORMAT=json
EXPOSE 8080
STOPSIGNAL SIGTERM
# Fails until the daemon was ready once, which needs its queue, table, topic and bucket.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["/usr/local/bin/trailhound", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/trailhound"]
CMD ["run"]

ARG VERSION
ARG REVISION
LABEL org.opencontainers.image.title="trailhound" \
      org.opencontainers.image.description="One container that turns AWS CloudTrail into alerts" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
