# Locker in one small image: the Concourse resource type, the server and the command line are one static binary.
#
#   docker build --tag locker .
#   docker build --tag locker --platform linux/arm64 .       # written for it, but never built or tested so far
#
# The base images are arguments, so that a place without a registry can bring its own (ci/image does). BUILD_IMAGE needs
# cargo, a C compiler and /etc/ssl/certs/ca-certificates.crt; BASE_IMAGE needs a shell, and nothing else is used of it.
ARG BUILD_IMAGE=rust:1.95-slim-bookworm
ARG BASE_IMAGE=busybox:1.37

FROM ${BUILD_IMAGE} AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY bin bin
COPY src src
COPY tests tests
COPY benches benches
# With glibc and with musl alike this links everything into the one file. With a target named, build scripts and macros,
# which are loaded at run time, are left alone.
ENV RUSTFLAGS="-C target-feature=+crt-static"
RUN target=$(rustc -vV | sed -n 's/^host: //p') \
    && cargo build --release --locked --bin locker --target "$target" \
    && mkdir -p /image/bin && cp "target/$target/release/locker" /image/bin/

# The black-box suite of the resource against the very binary that the image ships.
FROM build AS tests
RUN target=$(rustc -vV | sed -n 's/^host: //p') \
    && LOCKER_BINARY=/image/bin/locker cargo test --locked --target "$target" \
        --test it resource

FROM ${BASE_IMAGE}
# From `tests`, so that there is no image of a binary that failed them.
COPY --from=tests /image/bin/locker /usr/local/bin/locker
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
# Any user may run the server: the directory of the store is open, the files in it are private.
RUN mkdir -p /opt/resource /data && chmod 1777 /data \
    && ln -s ../../usr/local/bin/locker /opt/resource/check \
    && ln -s ../../usr/local/bin/locker /opt/resource/in \
    && ln -s ../../usr/local/bin/locker /opt/resource/out \
    && ln -s locker /usr/local/bin/lockcli \
    && ln -s locker /usr/local/bin/lockagt
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    LOCKER_LISTEN=0.0.0.0 \
    LOCKER_STORE=sqlite:/data/locker.db
VOLUME /data
EXPOSE 8910
# No answer that the server is ready: the reason stands in `docker inspect`.
HEALTHCHECK --interval=15s --timeout=6s --start-period=30s --retries=3 CMD ["locker", "server", "--ask-ready"]
ENTRYPOINT ["locker"]
CMD ["server"]
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="locker" \
      org.opencontainers.image.description="Locks for CI that cannot get stuck, cannot be granted twice, and tell you who holds them and who waits" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
