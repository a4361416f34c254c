package proxy

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// HT-13: over HTTP/2 trailers follow a body whose length was told, over HTTP/1.1
// only one in chunks.
func TestHT13TrailersOfAnHTTP2UpstreamReachHTTP1(t *testing.T) {
	up := newH2CUpstream(t)
	up.answer(func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/trailer") {
			rw.Header().Set("Trailer", "X-Checksum")
			defer rw.Header().Set("X-Checksum", "abc")
		}
		rw.Header().Set("Content-Length", "4")
		io.WriteString(rw, "body")
	})
	w := newWorld(t, func(_ *world, a *App, _ *Config) {
		a.Routes = append(a.Routes, Route{Path: "/two/", Upstream: up.h2c(), Auth: AuthNone})
	})
	for _, row := range []struct {
		name, line    string
		body, trailer string
		length        int64
	}{
		{"an answer with trailers", "GET /two/trailer", "body", "abc", -1},
		{"one without has a length", "GET /two/x", "body", "", 4},
		{"and so has one without a body", "HEAD /two/trailer", "", "", 4},
	} {
		t.Run(row.name, func(t *testing.T) {
			got := w.send(row.line)
			if got.body != row.body || got.Trailer.Get("X-Checksum") != row.trailer || got.ContentLength != row.length {
				t.Errorf("body %q, trailer %v, length %d", got.body, got.Trailer, got.ContentLength)
			}
		})
	}
}
