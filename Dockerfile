# The broker and its command line. The final image has no shell, no package manager and no root.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin tokencached --bin tokencache \
    && install -D -t /out/bin target/release/tokencached target/release/tokencache \
    && mkdir -p /out/state

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /out/bin/ /usr/local/bin/
# SQLite and relative paths; with Postgres nothing is written here.
COPY --from=build --chown=nonroot:nonroot /out/state /var/lib/tokencache
WORKDIR /var/lib/tokencache
USER nonroot
EXPOSE 50051 50052 9464
ENTRYPOINT ["/usr/local/bin/tokencached"]
CMD ["serve", "--config", "/etc/tokencache/tokencached.toml"]
