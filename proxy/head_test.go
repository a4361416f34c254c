package proxy

import (
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// HEAD must not end an upstream's HTTP/2 connection: others are on it, and the body
// of a request that has to go to another connection is gone.
func TestHT14HEADLeavesHTTP2ConnectionsAlone(t *testing.T) {
	up := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }))
	up.EnableHTTP2 = true
	up.StartTLS()
	t.Cleanup(up.Close)
	pool := x509.NewCertPool()
	pool.AddCert(up.Certificate())
	w := newWorld(t, func(_ *world, a *App, _ *Config) {
		a.Routes = []Route{{Path: "/", Upstream: must(url.Parse(up.URL)), Auth: AuthNone, TLS: UpstreamTLS{CA: pool}}}
	})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 100 {
				method, body := http.MethodPost, "a body"
				if i == 0 {
					method, body = http.MethodHead, ""
				}
				answer := httptest.NewRecorder()
				w.gateway.ServeHTTP(answer, httptest.NewRequest(method, "http://"+testHost+"/x", strings.NewReader(body)))
				if answer.Code != 200 || answer.Body.String() != body {
					t.Errorf("%s: status %d, %q", method, answer.Code, answer.Body)
				}
			}
		})
	}
	wg.Wait()
}
