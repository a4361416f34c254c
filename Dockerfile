# One static binary, the certificate authorities and an empty /data, run by nobody in particular.
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /image/sessiongate ./cmd/sessiongate
RUN mkdir -p /image/data /image/tmp

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /src/LICENSE /image/sessiongate /
# The store lives in /data, the demo in /tmp; a new volume takes over the owner of the directory it covers.
COPY --from=build --chown=65532:65532 /image/data /data
COPY --from=build --chown=65532:65532 /image/tmp /tmp
# A number, so that Kubernetes' runAsNonRoot can tell.
USER 65532:65532
# The store's default path is relative: it ends up on the volume.
WORKDIR /data
VOLUME /data
EXPOSE 8080
# Asks the admin listener, which the container's loopback has to itself.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
  CMD ["/sessiongate", "healthcheck", "-config", "/etc/sessiongate/config.yaml"]
ENTRYPOINT ["/sessiongate"]
CMD ["serve", "-config", "/etc/sessiongate/config.yaml"]
